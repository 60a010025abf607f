// Command picture draws the dashboard from a running Prometheus, as Grafana
// would show it: it asks every panel's queries and fails where one gets no data.
//
//	picture -prometheus http://127.0.0.1:9090 -last 20m -out docs/dashboard.png
//
// An SVG needs nothing else; a PNG is Chromium's picture of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/tagstream/tagstream/test/observability"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

func run() error {
	prometheus := flag.String("prometheus", "http://127.0.0.1:9090", "`URL` of Prometheus")
	board := flag.String("dashboard", "deploy/grafana/dashboards/tagstream.json", "`FILE` of the dashboard")
	last := flag.Duration("last", 20*time.Minute, "how much `TIME` to show")
	out := flag.String("out", "dashboard.svg", "`FILE` to write, .svg or .png")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b, err := observability.Load(*board)
	if err != nil {
		return err
	}
	end := time.Now().Truncate(time.Second)
	picture, err := observability.Draw(ctx, b, *prometheus, end.Add(-*last), end)
	if err != nil {
		return err
	}
	if strings.HasSuffix(*out, ".png") {
		err = screenshot(ctx, picture, *out)
	} else {
		err = os.WriteFile(*out, []byte(picture.SVG), 0o644)
	}
	if err != nil {
		return err
	}
	panels := 0
	for _, p := range b.Panels {
		if p.Type != "row" {
			panels++
		}
	}
	fmt.Printf("%d of %d panels have data\n", panels-len(picture.Empty), panels)
	if len(picture.Empty) > 0 {
		return fmt.Errorf("no data in: %s", strings.Join(picture.Empty, ", "))
	}
	return nil
}

// chromiumTimeout bounds the drawing of a picture.
const chromiumTimeout = 3 * time.Minute

// screenshot has headless Chromium draw an SVG, in a profile of its own and
// without a word to the network.
func screenshot(ctx context.Context, p observability.Picture, out string) error {
	ctx, cancel := context.WithTimeout(ctx, chromiumTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "picture-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	page := filepath.Join(dir, "page.html")
	if err := os.WriteFile(page, []byte(`<!doctype html><meta charset="utf-8"><body style="margin:0">`+p.SVG), 0o600); err != nil {
		return err
	}
	drawn, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
		"--user-data-dir="+filepath.Join(dir, "profile"), fmt.Sprintf("--window-size=%d,%d", p.Width, p.Height),
		"--screenshot="+drawn, "file://"+page)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("have Chromium draw it: %w\n%s", err, text)
	}
	return nil
}
