package obs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	opsHeaderTimeout   = 5 * time.Second
	opsIdleTimeout     = 2 * time.Minute
	opsShutdownTimeout = 2 * time.Second
)

// NewRegistry returns a metrics registry with the metrics that every program has: the Go runtime,
// the process, the program's version and its health.
func NewRegistry(health *Health, version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	promauto.With(r).NewGauge(prometheus.GaugeOpts{
		Name: "tagstream_build_info", Help: "1, with the program's version.", ConstLabels: prometheus.Labels{"version": version}}).Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), readiness{health})
	return r
}

// readiness exposes Health as metrics, evaluated at each scrape.
type readiness struct{ health *Health }

var componentReady = prometheus.NewDesc("tagstream_component_ready", "1 while a component of /readyz is ready.", []string{"component"}, nil)

// Describe implements prometheus.Collector.
func (readiness) Describe(ch chan<- *prometheus.Desc) { ch <- componentReady }

// Collect implements prometheus.Collector.
func (r readiness) Collect(ch chan<- prometheus.Metric) {
	why, idle := r.health.NotReady(), r.health.StandsBy()
	for _, c := range r.health.Components() {
		ready := 1.0
		if why[c] != "" || idle[c] != "" {
			ready = 0
		}
		ch <- prometheus.MustNewConstMetric(componentReady, prometheus.GaugeValue, ready, c)
	}
}

// OpsHandler serves /healthz (the process answers), /readyz (every component
// is well, else 503 and why), /metrics and /debug/pprof. extra, if not nil,
// serves every other path.
func OpsHandler(health *Health, registry prometheus.Gatherer, extra http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		why := health.NotReady()
		w.Header().Set("Content-Type", "application/json")
		if len(why) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		// The client may be gone; there is no other place to report that.
		_ = json.NewEncoder(w).Encode(struct {
			NotReady   map[string]string `json:"notReady"`
			Ready      bool              `json:"ready"`
			StandingBy map[string]string `json:"standingBy,omitempty"`
		}{why, len(why) == 0, health.StandsBy()})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	if extra != nil {
		mux.Handle("/", extra)
	}
	return mux
}

// Serve serves handler on listener until ctx ends, then gives open requests up to drain to finish,
// cuts off the rest, and returns nil. It closes the listener. The error is the listener's.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, drain time.Duration) error {
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: opsHeaderTimeout, IdleTimeout: opsIdleTimeout}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := srv.Shutdown(shutdown); err != nil {
		_ = srv.Close() // their time is over
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

// RunOps serves the ops handler on listener until ctx ends.
func RunOps(ctx context.Context, listener net.Listener, health *Health, registry prometheus.Gatherer, extra http.Handler) error {
	return Serve(ctx, listener, OpsHandler(health, registry, extra), opsShutdownTimeout)
}
