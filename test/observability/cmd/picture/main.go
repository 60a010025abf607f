// Command picture draws the dashboard from a running Prometheus, as Grafana
// would show it: it asks every panel's queries and fails where one gets no data.
//
//	picture -prometheus http://127.0.0.1:9090 -last 20m -out docs/dashboard.svg
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
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
	out := flag.String("out", "dashboard.svg", "`FILE` to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b, err := observability.Load(*board)
	if err != nil {
		return err
	}
	end := time.Now().Truncate(time.Second)
	svg, empty, err := observability.Picture(ctx, b, *prometheus, end.Add(-*last), end)
	if err != nil {
		return err
	}
	if err := os.WriteFile(*out, []byte(svg), 0o644); err != nil {
		return err
	}
	panels := 0
	for _, p := range b.Panels {
		if p.Type != "row" {
			panels++
		}
	}
	fmt.Printf("%d of %d panels have data\n", panels-len(empty), panels)
	if len(empty) > 0 {
		return fmt.Errorf("no data in: %s", strings.Join(empty, ", "))
	}
	return nil
}
