package soak_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/tagstream/tagstream/test/process"
)

// readerPause is the reader's pause between two requests.
const readerPause = 50 * time.Millisecond

// reader queries the API during the whole run. Each answer must be right or say that the API is
// unavailable; it must never be wrong or an internal error.
type reader struct {
	mu    sync.Mutex
	asked int
	away  int
	wrong []string
}

func (r *reader) run(ctx context.Context, base string) {
	paths := []string{"/v1/posts?tags=art&limit=50", "/v1/posts?tags=art&tags=photo&limit=20", "/v1/posts?tags=photo&last=10", "/v1/status", "/v1/tags?limit=20"}
	ticker := time.NewTicker(readerPause)
	defer ticker.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		path := paths[i%len(paths)]
		status, body := process.Fetch(base + path)
		if ctx.Err() != nil {
			return
		}
		r.note(path, status, body)
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

func (r *reader) note(path string, status int, body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	switch status {
	case http.StatusOK:
		if err := inOrder(body); err != nil {
			r.wrong = append(r.wrong, fmt.Sprintf("GET %s: %v", path, err))
		}
	case 0, http.StatusServiceUnavailable:
		r.away++
	default:
		r.wrong = append(r.wrong, fmt.Sprintf("GET %s: status %d: %s", path, status, body))
	}
}

// inOrder checks that a page has its posts newest first, each once.
func inOrder(body string) error {
	var page struct {
		Posts []struct{ URI, SortAt string }
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		return fmt.Errorf("read the answer: %w: %s", err, body)
	}
	seen := map[string]bool{}
	for i, p := range page.Posts {
		if seen[p.URI] {
			return fmt.Errorf("%s is on the page twice", p.URI)
		}
		seen[p.URI] = true
		// Times have a fixed length, so they compare as text.
		if i > 0 && p.SortAt > page.Posts[i-1].SortAt {
			return fmt.Errorf("%s of %s comes after one of %s", p.URI, p.SortAt, page.Posts[i-1].SortAt)
		}
	}
	return nil
}
