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

// Health asks the program's ops listener whether it is ready. It is for containers, whose images
// contain nothing but the program.
type Health struct {
	Ops
}

// Run sends the request.
func (h *Health) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Address()+"/readyz", nil)
	if err != nil {
		return Bad("OPS_LISTEN", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", h.Listen, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxHealthAnswer))
	if err != nil {
		return fmt.Errorf("ask %s: %w", h.Listen, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", strings.TrimSpace(string(answer)))
	}
	return nil
}

// Address returns the URL of the ops listener for requests from the same machine.
func (o Ops) Address() string {
	host, port, _ := net.SplitHostPort(o.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // what listens everywhere
	}
	return "http://" + net.JoinHostPort(host, port)
}
