package containers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// clientLimit is the patience of a client of the API.
const clientLimit = 30 * time.Second

// readers are how many clients ask at once, each as fast as askEvery lets it.
const (
	readers  = 4
	askEvery = 20 * time.Millisecond
)

// load asks the API all the time, as readers who page through tags do.
type load struct {
	stop func()

	mu       sync.Mutex
	asked    int
	failures []string
	slowest  time.Duration
}

// startLoad begins to ask; end stops it.
func startLoad(t testing.TB, base string) *load {
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
		asked := time.Now()
		status, body := get(context.WithoutCancel(ctx), base+"/v1/posts?"+query.Encode())
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
		l.count(time.Since(asked), failure)
	}
}

func (l *load) count(took time.Duration, failure string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	l.slowest = max(l.slowest, took)
	if failure != "" {
		l.failures = append(l.failures, time.Now().UTC().Format("15:04:05.000 ")+failure)
	}
}

// counts are those so far: requests, and failed ones.
func (l *load) counts() (asked, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked, len(l.failures)
}

// since are the failures after the first n.
func (l *load) since(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.failures[n:])
}

// end stops the asking and returns all failures.
func (l *load) end() (asked int, failures []string, slowest time.Duration) {
	l.stop()
	return l.asked, l.failures, l.slowest
}

var patient = &http.Client{Timeout: clientLimit}

// get returns the status and the body of an answer; status 0 is no answer.
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
