package ingest

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/services/ingest/internal/jobs"
)

// A page in an operator's browser cannot request jobs.
func TestJobsRefuseWebPages(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Hosts: []string{"a.example"}}, Deps{NATS: natstest.Server(t).Conn(t), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	mux := http.NewServeMux()
	s.Handle(mux)
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/jobs/reconcile", strings.NewReader(`{}`))
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	mux.ServeHTTP(w, r)
	require.Equal(t, http.StatusForbidden, w.Code, w.Body)
}

// A job is requested, examined and stopped, whether this program leads or not, and invalid requests
// are refused.
func TestJobRequests(t *testing.T) {
	t.Parallel()
	server := natstest.Server(t)
	require.NoError(t, stream.Ensure(t.Context(), server.JetStream(t), stream.Config{}))
	s, err := New(Config{Hosts: []string{"a.example"}}, Deps{NATS: server.Conn(t), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	mux := http.NewServeMux()
	s.Handle(mux)
	for _, step := range []struct {
		request, body string
		status        int
		kind          jobs.Kind
		state         jobs.State
	}{
		{"GET /jobs", "", http.StatusOK, "", ""},
		{"POST /jobs/backfill", `{"from":"tip","for":"1h"}`, http.StatusBadRequest, "", ""},
		{"POST /jobs/backfill", `{"from":"-2h","until":"now"}`, http.StatusBadRequest, "", ""},
		{"POST /jobs/backfill", `{"from":"-2h","for":"1h"}`, http.StatusAccepted, jobs.Backfill, jobs.Asked},
		{"POST /jobs/reconcile", `{}`, http.StatusConflict, "", ""},
		{"GET /jobs", "", http.StatusOK, jobs.Backfill, jobs.Asked},
		{"DELETE /jobs", "", http.StatusOK, jobs.Backfill, jobs.Ended},
		{"DELETE /jobs", "", http.StatusOK, jobs.Backfill, jobs.Ended},
		{"POST /jobs/reconcile", `{"dryRun":true,"maxShare":"200%"}`, http.StatusBadRequest, "", ""},
		{"POST /jobs/reconcile", `{"dryRun":true,"maxShare":"20%"}`, http.StatusAccepted, jobs.Reconcile, jobs.Asked},
	} {
		method, path, _ := strings.Cut(step.request, " ")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(step.body)))
		require.Equal(t, step.status, w.Code, "%s %s: %s", step.request, step.body, w.Body)
		var j jobs.Job
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &j))
		require.Equal(t, step.kind, j.Kind, step.request)
		require.Equal(t, step.state, j.State, step.request)
	}
}
