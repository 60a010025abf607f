package containers_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// TestLoadCounts checks how failures are counted: a request whose answer is interrupted once is
// repeated; a refusal and two interruptions are failures.
func TestLoadCounts(t *testing.T) {
	const good = `{"posts":[],"page":{"hasNext":false}}`
	breakOff := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(good))
		_ = http.NewResponseController(w).Flush() // otherwise the client library repeats the request itself
		panic(http.ErrAbortHandler)
	}
	for name, c := range map[string]struct {
		answer        func(w http.ResponseWriter, n int64)
		again, failed bool
	}{
		"all is well": {answer: func(w http.ResponseWriter, _ int64) { _, _ = w.Write([]byte(good)) }},
		"every other answer breaks off": {again: true, answer: func(w http.ResponseWriter, n int64) {
			if n%2 == 1 {
				breakOff(w)
			}
			_, _ = w.Write([]byte(good))
		}},
		"all break off": {failed: true, answer: func(w http.ResponseWriter, _ int64) { breakOff(w) }},
		"refusals":      {failed: true, answer: func(w http.ResponseWriter, _ int64) { w.WriteHeader(http.StatusServiceUnavailable) }},
		"not a page":    {failed: true, answer: func(w http.ResponseWriter, _ int64) { _, _ = w.Write([]byte("<html>")) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var count atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { c.answer(w, count.Add(1)) }))
			defer server.Close()
			l := newLoad(t, server.URL, 1)
			poll.Until(t, time.Minute, func() (bool, string) { sum := l.counts(); return sum.asked >= 5, sum.String() })
			sum, _ := l.end()
			many := func(yes bool) int {
				if yes {
					return sum.asked
				}
				return 0
			}
			require.Len(t, sum.again, many(c.again), "sent twice")
			require.Len(t, sum.failed, many(c.failed), "failed")
		})
	}
}
