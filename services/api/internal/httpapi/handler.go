// Package httpapi owns the HTTP API of the index: routes, parameters, page tokens, the format of
// answers and errors, and openapi.yaml, which describes all of it and which tests compare with the
// code.
//
// A request is validated completely before any query. Every request costs a bounded number of rows.
// An answer is complete or an error, and no error exposes internals. Errors are problem+json with a
// stable code: 4xx for what the client should change, 503 with Retry-After while the database is
// down or overloaded, 500 for everything else, which is logged.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/services/api/internal/feeds"
	"github.com/tagstream/tagstream/services/api/internal/site"
)

const (
	// requestTimeout bounds the work for one request, without sending the answer. It is a little
	// longer than the statement timeout of Postgres.
	requestTimeout = 6 * time.Second
	// A request may get a connection that broke while idle. It is retried with other connections
	// for retryFor, so that no request fails because a database restarts or fails over.
	retryFor   = time.Second
	retryPause = 20 * time.Millisecond
	// maxSending bounds the bytes of all answers being sent: clients that request much and read
	// slowly cannot fill the memory.
	maxSending = 64 << 20
	// maxLogged bounds the logged bytes of a query string.
	maxLogged = 300
)

// Index is what the API needs of *query.Reader.
type Index interface {
	Posts(context.Context, query.PostQuery) (query.PostPage, error)
	Changes(context.Context, query.ChangeQuery) (query.ChangePage, error)
	ChangedTags(ctx context.Context, after query.FeedPosition) (query.ChangedTags, error)
	Post(ctx context.Context, did, rkey string) (query.PostRow, error)
	Quoted(context.Context, []query.PostName) ([]query.PostRow, error)
	Tags(context.Context, query.TagQuery) (query.TagPage, error)
	TagsWithPrefix(ctx context.Context, prefix string) ([]query.TagCount, error)
	TagHistory(ctx context.Context, tag string) (query.TagHistory, error)
	Popular(ctx context.Context, hours int) (query.Popularity, error)
	TagsInUse(ctx context.Context, names []string) ([]string, error)
	RankedTags(ctx context.Context, offset, limit int) (tags []query.TagCount, total int64, err error)
	Status(context.Context) (query.Status, error)
}

// Config is what a Handler needs.
type Config struct {
	Index    Index
	Codec    *keyset.Codec
	Logger   *slog.Logger
	Registry prometheus.Registerer
	// MaxInFlight bounds the requests in progress; it is above 0.
	MaxInFlight int
	// MaxFollowers bounds the connections of /v1/stream; it is above 0.
	MaxFollowers int
	// Version is the program's version, for answers.
	Version string
	// PublicURL is the public URL of the service, without a trailing slash; "" means the host of
	// each request.
	PublicURL string
	// Feeds are the Bluesky feeds to serve, nil for none.
	Feeds *Feeds
	// Media says how feeds show pictures.
	Media feeds.Media
	// Tracer traces requests; nil traces none.
	Tracer trace.Tracer
}

// Handler answers the API's requests. It is safe for concurrent use.
type Handler struct {
	index     Index
	codec     *keyset.Codec
	logger    *slog.Logger
	metrics   *metrics
	version   string
	publicURL string
	media     feeds.Media
	feeds     atomic.Pointer[Feeds]
	tracer    trace.Tracer // nil is off
	slots     chan struct{}
	sending   budget
	followers *followers
	// catchUpSlots and catchUpBytes bound the reads for single followers.
	catchUpSlots chan struct{}
	catchUpBytes budget
	heartbeat    time.Duration
	gzips        sync.Pool // of *gzip.Writer
	freshness    freshness
	popularity   popularity
	site         *site.Site
	etags        *etags
	mux          http.Handler
}

// New returns a handler and registers its metrics.
func New(c Config) *Handler {
	if c.Tracer != nil {
		c.Index = tracedIndex{c.Index, c.Tracer}
	}
	h := &Handler{
		index: c.Index, codec: c.Codec, logger: c.Logger, version: c.Version, publicURL: c.PublicURL, media: c.Media, tracer: c.Tracer,
		metrics:      newMetrics(c.Registry, c.MaxInFlight, c.MaxFollowers),
		slots:        make(chan struct{}, c.MaxInFlight),
		sending:      budget{max: maxSending},
		catchUpSlots: make(chan struct{}, feedReads),
		catchUpBytes: budget{max: maxCatchingUp},
		heartbeat:    heartbeat,
	}
	h.followers = &followers{
		index: c.Index, metrics: h.metrics, logger: c.Logger, encodeChange: h.changeEvent, encodeReset: h.resetEvent, encodePosition: h.positionEvent, max: c.MaxFollowers, positionAge: positionAge,
		woken: make(chan struct{}, 1), stopped: make(chan struct{}), left: make(chan struct{}, 1), lists: map[keyset.Fingerprint]*followedList{},
	}
	h.feeds.Store(c.Feeds)
	h.site, h.etags = site.New(c.Media), newETags(c.Codec)
	h.gzips.New = func() any {
		z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // fails only for an invalid level
		return z
	}
	h.mux = h.serveOnly(slices.Concat(h.routes(), h.pageRoutes()))
	return h
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// handle wraps the work of a route with metrics, logs, headers and error handling.
func (h *Handler) handle(route string, answer func(*http.Request) (*response, error)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		start := time.Now()
		h.metrics.inFlight.Inc()
		w := &recorder{ResponseWriter: rw}
		r, endTrace := h.trace(r)
		done := sync.OnceFunc(func() {
			h.metrics.inFlight.Dec()
			if w.status == 0 { // it panicked; net/http cuts the connection
				w.status = http.StatusInternalServerError
			}
			endTrace(w.status)
			took := time.Since(start)
			h.metrics.countRequest(route, w.status, took)
			if !h.logger.Enabled(r.Context(), slog.LevelDebug) {
				return
			}
			h.logger.Debug("request", "route", route, "method", r.Method, "path", r.URL.Path,
				"query", r.URL.RawQuery[:min(maxLogged, len(r.URL.RawQuery))], "status", w.status, "bytes", w.bytes, "took", took)
		})
		defer done()
		head := w.Header()
		if route != routeAdminTags { // web pages must not read that
			head.Set("Access-Control-Allow-Origin", "*")
			head.Set("Access-Control-Expose-Headers", "ETag, Link, Retry-After")
		}
		head.Set("Vary", "Accept-Encoding")
		if route == routeIndex || route == routeNone {
			head.Set("Vary", "Accept-Encoding, Accept")
		}
		head.Set("X-Content-Type-Options", "nosniff")
		if r.Method == http.MethodOptions && route != routeNone {
			head.Set("Allow", allowedMethods)
			head.Set("Access-Control-Allow-Methods", allowedMethods)
			head.Set("Access-Control-Allow-Headers", "*")
			head.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		res, err := h.work(r, answer)
		switch {
		case err == nil && res.follower != nil:
			h.connectFollower(w, r, res.follower, done)
		case err == nil:
			h.write(w, r, res)
		case r.Context().Err() != nil:
			w.status = statusClientGone
		default:
			h.writeError(w, r, route, err)
		}
	})
}

// writeError logs an error and sends it in the form that the route's clients expect.
func (h *Handler) writeError(w http.ResponseWriter, r *http.Request, route string, err error) {
	p := problemOf(err)
	h.logFailure(route, p, err)
	if strings.HasPrefix(r.URL.Path, "/xrpc/") {
		writeXRPCError(w, p)
		return
	}
	if showsPage(route, r) {
		if page, err := h.errorPage(r, p); err == nil {
			h.write(w, r, page)
			return
		}
	}
	writeProblem(w, p)
}

// budget is a number of bytes shared by all requests.
type budget struct {
	used atomic.Int64
	max  int64
}

// take takes n bytes if the budget has that many left or is unused: a single answer may exceed the
// budget. Return them with giveBack.
func (b *budget) take(n int64) bool {
	if used := b.used.Add(n); used > b.max && used != n {
		b.giveBack(n)
		return false
	}
	return true
}

func (b *budget) giveBack(n int64) { b.used.Add(-n) }

var errOverloaded = fail(codeOverloaded, "Too many requests at the moment; try again in a few seconds.")

// work runs the work of a route, with a timeout and a limit of concurrency. It frees its slot
// before the answer is sent, so that slow clients hold no slots.
func (h *Handler) work(r *http.Request, answer func(*http.Request) (*response, error)) (res *response, err error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		return nil, errOverloaded
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	r = r.WithContext(ctx)
	for start := time.Now(); ; {
		res, err = answer(r)
		if !retryable(err) || time.Since(start) > retryFor {
			return res, err
		}
		select {
		case <-ctx.Done():
			return res, err
		case <-time.After(retryPause):
		}
	}
}

// retryable reports whether the same work may succeed on another connection. Requests only read, so
// repeating them is safe.
func retryable(err error) bool {
	return err != nil && store.Unavailable(err) && !store.TooSlow(err) && !errors.Is(err, store.ErrNotMigrated)
}

// logFailure logs failures that the operator should look into. A database that is down is in the
// health report; logging it for every request would only repeat that.
func (h *Handler) logFailure(route string, p *problem, err error) {
	var own *problem
	switch {
	case errors.As(err, &own) || p.Status < http.StatusInternalServerError:
	case p.Code == codeInternal:
		h.logger.Error("request failed", "route", route, "err", err)
	default:
		h.logger.Debug("request failed", "route", route, "err", err)
	}
}

// recorder records the status and size of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.bytes += n
	return n, err
}

// Unwrap gives http.ResponseController the underlying writer.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
