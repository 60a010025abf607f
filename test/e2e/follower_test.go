package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	neturl "net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A polling follower polls again within followPause. A stream is cut within followCut, or after
	// fewer than 1<<followCutBits bytes of any event size.
	followPause   = time.Second
	followCut     = 3 * time.Second
	followCutBits = 21
	// followGap is the pause between two connections.
	followGap = 20 * time.Millisecond
	// followRetry is the pause after a request without an answer.
	followRetry = 200 * time.Millisecond
)

// follower keeps a copy of a list as described in docs/api.md: it polls /v1/changes or reads
// /v1/stream.
type follower struct {
	url    string
	params neturl.Values
	rng    *rand.Rand
	pushed bool

	mu   sync.Mutex // guards held
	held map[string]string

	after string
	begun bool // held is a complete list, as of after or later

	did followed
}

// followed counts the actions of a follower.
type followed struct{ pages, connections, events, resets atomic.Int64 }

func (d *followed) add(other *followed) {
	d.pages.Add(other.pages.Load())
	d.connections.Add(other.connections.Load())
	d.events.Add(other.events.Load())
	d.resets.Add(other.resets.Load())
}

func (d *followed) String() string {
	return fmt.Sprintf("%d pages, %d connections with %d events, %d resets", d.pages.Load(), d.connections.Load(), d.events.Load(), d.resets.Load())
}

// errNoAnswer means that the server or its database is unavailable.
var errNoAnswer = errors.New("no answer")

// errGone means that the position has expired.
var errGone = errors.New("410")

// follow follows the list until ctx ends. The error is an answer that even a failing server must
// not give.
func (f *follower) follow(ctx context.Context) error {
	for {
		err := f.step(ctx)
		pause := followGap
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errNoAnswer):
			pause = followRetry
		case errors.Is(err, errGone):
			f.after, f.begun = "", false
			f.did.resets.Add(1)
		case err != nil:
			return fmt.Errorf("%s: %w", f.params.Encode(), err)
		case !f.pushed:
			pause = time.Duration(f.rng.Int64N(int64(followPause)))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// step applies a page of changes, or the events of one connection. Before the first one it reads
// the list.
func (f *follower) step(ctx context.Context) error {
	if !f.begun {
		if err := f.begin(ctx); err != nil {
			return err
		}
	}
	if f.pushed {
		return f.stream(ctx)
	}
	for more := true; more; {
		var page changesPage
		if err := f.get(ctx, "/v1/changes", &page, "after", f.after, "limit", fmt.Sprint(1+f.rng.IntN(50))); err != nil {
			return err
		}
		f.did.pages.Add(1)
		for _, c := range page.Changes {
			if err := f.apply(c); err != nil {
				return err
			}
		}
		f.after, more = page.Page.Next, page.Page.HasNext
	}
	return nil
}

// begin reads the list, after taking a position.
func (f *follower) begin(ctx context.Context) error {
	if f.after == "" {
		var now changesPage
		if err := f.get(ctx, "/v1/changes", &now); err != nil {
			return err
		}
		f.after = now.Page.Next
	}
	held, err := f.list(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held, f.begun = held, true
	return nil
}

// stream reads one connection until either end cuts it.
func (f *follower) stream(ctx context.Context) error {
	cut, cancel := context.WithTimeout(ctx, time.Duration(f.rng.Int64N(int64(followCut))))
	defer cancel()
	var more []string
	if f.rng.IntN(4) == 0 {
		more = []string{"after", f.after}
	}
	res, err := f.ask(cut, "/v1/stream", f.after, more...)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	f.did.connections.Add(1)
	id, name, data := f.after, "", ""
	for in := bufio.NewReader(io.LimitReader(res.Body, 1+f.rng.Int64N(1<<f.rng.IntN(followCutBits)))); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil // also in the middle of an event, which then does not count
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			data += value
		case "":
			f.after = id
			if data == "" {
				continue
			}
			f.did.events.Add(1)
			if name == "reset" {
				f.begun = false
				f.did.resets.Add(1)
				if err := f.begin(ctx); err != nil {
					return err // the rest is requested again
				}
			} else {
				var c change
				if err := json.Unmarshal([]byte(data), &c); err != nil {
					return fmt.Errorf("%w: %s", err, data)
				}
				if c.Op != name || c.Cursor != id {
					return fmt.Errorf("event %s with id %s has the data %s", name, id, data)
				}
				if err := f.apply(c); err != nil {
					return err
				}
			}
			name, data = "", ""
		}
	}
}

func (f *follower) apply(c change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case c.Op == "remove" && c.URI != "":
		delete(f.held, c.URI)
		return nil
	case c.Op == "upsert" && c.Post != nil:
		return c.Post.put(f.held)
	}
	return fmt.Errorf("unknown kind of change %+v", c)
}

// differs returns how the follower's copy differs from the list, "" if it does not.
func (f *follower) differs(list map[string]string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for uri, post := range list {
		switch held, ok := f.held[uri]; {
		case !ok:
			all = append(all, "it lacks "+post)
		case held != post:
			all = append(all, "it has "+held+" in place of "+post)
		}
	}
	for uri := range f.held {
		if list[uri] == "" {
			all = append(all, "it still has "+uri)
		}
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("%d differences: %.2000s", len(all), all[0])
}

// followedPost is a received post, without its cursor and its author's names: a change of these is
// not a change of the post.
type followedPost map[string]json.RawMessage

func (p followedPost) put(into map[string]string) error {
	var uri string
	if err := json.Unmarshal(p["uri"], &uri); err != nil {
		return err
	}
	delete(p, "cursor")
	delete(p, "author")
	text, err := json.Marshal(p)
	into[uri] = string(text)
	return err
}

type change struct {
	Op, URI, Cursor string
	Post            followedPost
}

type changesPage struct {
	Changes []change
	Page    struct {
		HasNext bool
		Next    string
	}
}

// ask sends a request with the list's and additional parameters.
func (f *follower) ask(ctx context.Context, path, lastID string, more ...string) (*http.Response, error) {
	params := maps.Clone(f.params)
	for i := 0; i < len(more); i += 2 {
		params.Set(more[i], more[i+1])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+path+"?"+params.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	switch res.StatusCode {
	case http.StatusGone:
		return nil, errGone
	case http.StatusServiceUnavailable:
		return nil, fmt.Errorf("%w: %s", errNoAnswer, text)
	}
	return nil, fmt.Errorf("GET %s: %s: %s", req.URL.RequestURI(), res.Status, text)
}

func (f *follower) get(ctx context.Context, path string, into any, more ...string) error {
	res, err := f.ask(ctx, path, "", more...)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return nil
}

// list reads the whole list.
func (f *follower) list(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for token := ""; ; {
		var page struct {
			Posts []followedPost
			Page  struct {
				HasNext bool
				Next    string
			}
		}
		if err := f.get(ctx, "/v1/posts", &page, "after", token, "limit", "100"); err != nil {
			return nil, err
		}
		for _, p := range page.Posts {
			if err := p.put(all); err != nil {
				return nil, err
			}
		}
		if token = page.Page.Next; !page.Page.HasNext {
			return all, nil
		}
	}
}
