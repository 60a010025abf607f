package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/ingest/internal/jobs"
)

const (
	// opsTimeout bounds one request to the ops listener, and opsBody its body.
	opsTimeout = 10 * time.Second
	opsBody    = 64 << 10
)

// Handle adds the routes for jobs to the ops listener. The leading ingest runs them:
//
//	GET /jobs             the newest job, with its progress and result
//	POST /jobs/backfill   requests one: {"from":"-3d","for":"2d"}, optionally "hosts"
//	POST /jobs/reconcile  {"host":"…","maxShare":"5%","dryRun":true}, all optional
//	DELETE /jobs          stops the running one
func (s *Service) Handle(mux *http.ServeMux) {
	mux.HandleFunc("GET /jobs", s.answer(func(ctx context.Context, _ *http.Request) (any, error) {
		j, _, err := jobs.Get(ctx, s.js)
		return j, err
	}))
	mux.HandleFunc("DELETE /jobs", s.answer(func(ctx context.Context, _ *http.Request) (any, error) {
		j, _, err := jobs.Get(ctx, s.js)
		if err != nil {
			return nil, err
		}
		return jobs.Stop(ctx, s.js, j), nil
	}))
	mux.HandleFunc("POST /jobs/backfill", s.answer(func(ctx context.Context, r *http.Request) (any, error) {
		var q struct {
			From, For string
			Hosts     []string
		}
		if err := body(r, &q); err != nil {
			return nil, err
		}
		cfg := BackfillConfig{Ingest: s.cfg, From: q.From, For: q.For}
		if len(q.Hosts) > 0 {
			cfg.Ingest.Hosts = q.Hosts
		}
		asked, err := cfg.request(time.Now())
		return s.begin(ctx, jobs.Backfill, asked, err)
	}))
	mux.HandleFunc("POST /jobs/reconcile", s.answer(func(ctx context.Context, r *http.Request) (any, error) {
		var q struct {
			Host, MaxShare string
			DryRun         bool
		}
		if err := body(r, &q); err != nil {
			return nil, err
		}
		asked, err := ReconcileConfig{Ingest: s.cfg, Host: q.Host, MaxShare: q.MaxShare, DryRun: q.DryRun}.request()
		return s.begin(ctx, jobs.Reconcile, asked, err)
	}))
}

// begin requests a job, unless the request is invalid.
func (s *Service) begin(ctx context.Context, kind jobs.Kind, request any, bad error) (any, error) {
	if bad != nil {
		return nil, bad
	}
	j, _, err := jobs.Begin(ctx, s.js, kind, request)
	return j, err
}

// errBody is the error for an unreadable body.
var errBody = errors.New("the body is not a valid JSON request")

func body(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.Join(errBody, err)
	}
	return nil
}

// sameOrigin keeps web pages in an operator's browser from sending requests.
var sameOrigin = http.NewCrossOriginProtection()

// answer writes the result of do as JSON, or its error.
func (s *Service) answer(do func(context.Context, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), opsTimeout)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, opsBody)
		var out any
		crossOrigin := sameOrigin.Check(r)
		err := crossOrigin
		if err == nil {
			out, err = do(ctx, r)
		}
		status := http.StatusOK
		var bad *service.ConfigError
		switch {
		case crossOrigin != nil:
			status = http.StatusForbidden
		case errors.Is(err, errBody), errors.As(err, &bad):
			status = http.StatusBadRequest
		case errors.Is(err, jobs.ErrBusy):
			status = http.StatusConflict
		case err != nil:
			status = http.StatusServiceUnavailable
		case r.Method == http.MethodPost:
			status = http.StatusAccepted
		}
		if err != nil {
			out = map[string]string{"error": err.Error()}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(out) // the client may be gone
	}
}
