package containers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// clientLimit bounds a client's request to the API.
const clientLimit = 30 * time.Second

// readers is the number of concurrent clients, each with a request every askEvery.
const (
	readers  = 4
	askEvery = 20 * time.Millisecond
)

// load continuously sends requests to the API, like readers that page through tags.
type load struct {
	stop func()

	mu      sync.Mutex
	sum     requests
	slowest time.Duration
}

// requests counts the results of requests.
type requests struct {
	asked int
	// again counts those that a client had to send twice because the answer was interrupted: every
	// request is a GET, which a client may repeat automatically (RFC 9110, 9.2.2). They are not
	// failures, but a careless client would show an error.
	again []string
	// failed counts those without an answer, with two interrupted ones, or with another status.
	failed []string
}

// since returns the difference to earlier counts.
func (r requests) since(earlier requests) requests {
	return requests{
		asked:  r.asked - earlier.asked,
		again:  r.again[len(earlier.again):],
		failed: r.failed[len(earlier.failed):],
	}
}

// plus returns the sum.
func (r requests) plus(other requests) requests {
	return requests{
		asked:  r.asked + other.asked,
		again:  slices.Concat(r.again, other.again),
		failed: slices.Concat(r.failed, other.failed),
	}
}

func (r requests) String() string {
	return fmt.Sprintf("%d requests, %d sent twice, %d failed", r.asked, len(r.again), len(r.failed))
}

// startLoad starts the load; end stops it.
func startLoad(t testing.TB, base string) *load { return newLoad(t, base, readers) }

func newLoad(t testing.TB, base string, readers int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{}
	var running sync.WaitGroup
	for i := range readers {
		running.Go(func() { l.read(ctx, base, []string{"art", "photo", "music", "cats"}[i%4]) })
	}
	l.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(l.stop)
	return l
}

// read pages through a tag's posts, newest to oldest, again and again.
func (l *load) read(ctx context.Context, base, tag string) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	after := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		query := url.Values{"tags": {tag}, "limit": {"20"}}
		if after != "" {
			query.Set("after", after)
		}
		begun := time.Now()
		link := base + "/v1/posts?" + query.Encode()
		status, body := get(context.WithoutCancel(ctx), link)
		again := ""
		if status == 0 {
			again = body
			status, body = get(context.WithoutCancel(ctx), link)
		}
		var page struct {
			Page struct {
				HasNext bool   `json:"hasNext"`
				Next    string `json:"next"`
			} `json:"page"`
		}
		failure := ""
		switch {
		case status != http.StatusOK:
			failure = fmt.Sprintf("status %d: %.200s", status, body)
		default:
			if err := json.Unmarshal([]byte(body), &page); err != nil {
				failure = fmt.Sprintf("not a page: %v", err)
			}
		}
		after = ""
		if page.Page.HasNext {
			after = page.Page.Next
		}
		l.count(time.Since(begun), again, failure)
	}
}

func (l *load) count(took time.Duration, again, failure string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.asked++
	l.slowest = max(l.slowest, took)
	at := time.Now().UTC().Format("15:04:05.000 ")
	switch {
	case failure != "":
		l.sum.failed = append(l.sum.failed, at+failure)
	case again != "":
		l.sum.again = append(l.sum.again, at+again)
	}
}

// counts returns the counts so far.
func (l *load) counts() requests {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

// end stops the load and returns all counts.
func (l *load) end() (sum requests, slowest time.Duration) {
	l.stop()
	return l.sum, l.slowest
}

var patient = &http.Client{Timeout: clientLimit}

// get returns the status and the body of an answer; status 0 means none or an interrupted one.
func get(ctx context.Context, url string) (int, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	res, err := patient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

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
