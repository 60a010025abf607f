package service

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	healthTimeout = 3 * time.Second
	// maxHealthAnswer bounds what is read of the answer, in bytes.
	maxHealthAnswer = 4 << 10
)

// healthCommand asks the program's own operators' listener whether it is ready.
// It is for containers, whose images hold the program and nothing else.
func healthCommand() Command {
	return Command{Name: "health", Summary: "ask the running program whether it is ready; exit 1 with the reason if not", Run: health}
}

func health(ctx context.Context, v *Values) error {
	address := v.Listen("OPS_LISTEN")
	if err := v.Err(); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return &ConfigError{Prefix + "OPS_LISTEN", err}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // what listens everywhere
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return &ConfigError{Prefix + "OPS_LISTEN", err}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxHealthAnswer))
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", strings.TrimSpace(string(answer)))
	}
	return nil
}
