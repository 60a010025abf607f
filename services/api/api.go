// Package api is the service that answers queries of the index over HTTP, read only. Its database
// role can only select.
//
// It keeps no state: any number of instances can run side by side, and killing one loses only the
// answers in progress. While the database is down, requests get 503 and readiness fails.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/services/api/internal/feeds"
	"github.com/tagstream/tagstream/services/api/internal/httpapi"
)

// Deps are what the API receives from its program.
type Deps struct {
	Logger   *slog.Logger
	Registry prometheus.Registerer
	Health   *obs.Health
	// Listener, if not nil, replaces Config.Listen. Run closes it.
	Listener net.Listener
	// Tracer traces requests; nil traces none.
	Tracer trace.Tracer
}

// The components of Health that the API reports. Other services in the same process report their
// own databases and listeners.
const (
	HealthDatabase = "api.database"
	HealthListener = "api.listener"
)

const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// writeTimeout bounds the work for an answer and the time to send it together.
	writeTimeout = 30 * time.Second
	idleTimeout  = 2 * time.Minute
	// maxHeaderBytes is larger than the longest accepted query string, so that one that is too long
	// gets an answer with the reason.
	maxHeaderBytes = 128 << 10
	// drainTimeout is how long open requests may take after the service is asked to stop.
	drainTimeout = 10 * time.Second

	checkEvery   = 2 * time.Second
	checkTimeout = 3 * time.Second
)

var errStopping = errors.New("stopping")

// API is the service. Create it with New, and run it once.
type API struct {
	cfg   Config
	deps  Deps
	log   *slog.Logger
	codec *keyset.Codec
	feeds *feedsFile
	admin httpapi.Admin
}

// New checks the config and returns an API that has not started anything.
func New(cfg Config, deps Deps) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if len(cfg.CursorKeys) == 0 {
		keys, err := keyset.LoadKeys(cfg.CursorKeysFile)
		if err != nil {
			return nil, err
		}
		cfg.CursorKeys = keys
	}
	codec, err := keyset.NewCodec(cfg.CursorKeys...)
	if err != nil {
		return nil, fmt.Errorf("use the cursor keys: %w", err)
	}
	log := deps.Logger.With("service", "api")
	feeds, err := newFeedsFile(cfg, log)
	if err != nil {
		return nil, err
	}
	return &API{cfg: cfg, deps: deps, log: log, codec: codec, feeds: feeds}, nil
}

// Ops returns the handler of the routes for operators, under /v1/admin/. It belongs on the ops
// listener, never on a public one. It answers 503 while Run is not running.
func (a *API) Ops() http.Handler { return &a.admin }

// Run serves until ctx ends. Then it becomes unready, gives open requests some time to finish, and
// returns nil. It returns an error if the listener cannot be opened or fails.
func (a *API) Run(ctx context.Context) error {
	listener := a.deps.Listener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", a.cfg.Listen); err != nil {
			return fmt.Errorf("listen for the API: %w", err)
		}
	}
	defer listener.Close()
	// The reader must outlive ctx, since open requests use it.
	reader, err := query.Open(context.WithoutCancel(ctx), a.cfg.Database)
	if err != nil {
		return err
	}
	defer reader.Close()
	handler := httpapi.New(httpapi.Config{
		Index: reader, Codec: a.codec, Logger: a.log, Registry: a.deps.Registry,
		MaxInFlight: a.cfg.MaxInFlight, MaxFollowers: a.cfg.MaxFollowers, Version: service.Version(), PublicURL: a.cfg.PublicURL, Media: feeds.Media(a.cfg.Media), Feeds: a.feeds.now, Tracer: a.deps.Tracer,
	})
	a.admin.Use(handler)
	defer a.admin.Use(nil) // before the reader is closed

	checking, stopChecking := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	helpers.Go(func() { a.check(checking, handler) })
	helpers.Go(func() { handler.RunFollowers(checking) })
	helpers.Go(func() { a.feeds.watch(checking, a.log, handler.SetFeeds) })
	defer func() {
		stopChecking()
		helpers.Wait()
	}()
	return a.serve(ctx, listener, handler)
}

func (a *API) serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	a.deps.Health.Set(HealthListener, nil)
	a.log.Info("serving", "url", "http://"+listener.Addr().String())
	select {
	case err := <-failed:
		a.deps.Health.Set(HealthListener, err)
		return fmt.Errorf("serve the API on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	a.deps.Health.Set(HealthListener, errStopping)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		a.log.Warn("some requests took too long to finish and were cut off", "after", drainTimeout)
		_ = srv.Close() // the error would be about the listener, which Shutdown has closed
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API on %s: %w", listener.Addr(), err)
	}
	a.log.Info("stopped")
	return nil
}

// check keeps the health report current until ctx ends.
func (a *API) check(ctx context.Context, handler *httpapi.Handler) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, checkTimeout)
		err := handler.Check(attempt)
		cancel()
		if ctx.Err() != nil {
			return
		}
		a.deps.Health.Set(HealthDatabase, err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
