package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tagstream/tagstream/pkg/store/query"
)

// windows are the windows of /v1/tags. There are few, so that a process computes few lists.
var windows = []struct {
	name  string
	hours int
}{{"1h", 1}, {"6h", 6}, {"24h", 24}, {"72h", 72}}

const dayHours = 24

const (
	// popularAge is how long a window's tags are cached.
	popularAge = 10 * time.Second
	// A rising tag has at least a few posts, and clearly more than expected.
	risingPosts  = 5
	risingFactor = 1.5
)

// popular is a window's tags.
type popular struct {
	query.Popularity
	// rising are the tags with clearly more posts than their share in the hours before predicts,
	// the most surprising first.
	rising []risingTag
}

type risingTag struct {
	query.PopularTag
	expected float64
}

// popularity caches the tags of each window, and lets one request at a time compute them.
type popularity struct {
	mu      sync.Mutex
	byHours map[int]*cachedPopular
}

type cachedPopular struct {
	turn chan struct{} // held while the tags are computed
	at   time.Time
	last popular
}

// get returns the cached tags, or those from compute if the cached ones are too old.
func (p *popularity) get(ctx context.Context, hours int, compute func() (query.Popularity, error)) (popular, error) {
	p.mu.Lock()
	if p.byHours == nil {
		p.byHours = map[int]*cachedPopular{}
	}
	k := p.byHours[hours]
	if k == nil {
		k = &cachedPopular{turn: make(chan struct{}, 1)}
		p.byHours[hours] = k
	}
	p.mu.Unlock()
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return popular{}, ctx.Err()
	}
	if !k.at.IsZero() && time.Since(k.at) < popularAge {
		return k.last, nil
	}
	found, err := compute()
	if err != nil {
		return popular{}, err
	}
	k.at, k.last = time.Now(), popular{found, rising(found.Tags)}
	return k.last, nil
}

// rising compares each tag's posts with those that its share of the hours before predicts. A new
// index or more posts in the whole network make no tag rise.
func rising(tags []query.PopularTag) []risingTag {
	var now, before int64
	for _, t := range tags {
		now, before = now+t.Posts, before+t.Before
	}
	if before == 0 {
		return nil
	}
	var out []risingTag
	for _, t := range tags {
		expected := float64(t.Before) * float64(now) / float64(before)
		if t.Posts >= risingPosts && float64(t.Posts) >= risingFactor*expected {
			out = append(out, risingTag{t, expected})
		}
	}
	// How unlikely the count is by chance: the squared number of standard deviations of a Poisson
	// distribution.
	surprise := func(t risingTag) float64 {
		over := float64(t.Posts) - t.expected
		return over * over / (t.expected + 1)
	}
	slices.SortFunc(out, func(a, b risingTag) int {
		return cmp.Or(cmp.Compare(surprise(b), surprise(a)), strings.Compare(a.Name, b.Name))
	})
	return out
}

func (h *Handler) popularTags(ctx context.Context, hours int) (popular, error) {
	return h.popularity.get(ctx, hours, func() (query.Popularity, error) { return h.index.Popular(ctx, hours) })
}

type popularTagJSON struct {
	tagJSON
	Before int64 `json:"before"`
}

type popularJSON struct {
	Tags   []popularTagJSON `json:"tags"`
	Rising []popularTagJSON `json:"rising"`
	Since  utc              `json:"since"`
	// ComparedSince is the start of the hours of Before.
	ComparedSince utc `json:"comparedSince"`
}

// listPopular is /v1/tags with a window.
func (h *Handler) listPopular(r *http.Request, q values, window string) (*response, error) {
	hours := 0
	var names []string
	for _, w := range windows {
		names = append(names, w.name)
		if w.name == window {
			hours = w.hours
		}
	}
	if hours == 0 {
		return nil, fail(codeInvalidWindow, "Give window as one of %s: it is %s.", strings.Join(names, ", "), quote(window))
	}
	if slices.ContainsFunc(q, func(p pair) bool { return p.name != "window" && p.name != "limit" }) {
		return nil, fail(codeConflicting, "Give window alone or with limit: the popular tags have no pages.")
	}
	limit, err := q.limit("limit", defaultLimit)
	if err != nil {
		return nil, err
	}
	found, err := h.popularTags(r.Context(), hours)
	if err != nil {
		return nil, err
	}
	out := popularJSON{Tags: []popularTagJSON{}, Rising: []popularTagJSON{}, Since: utc(found.From), ComparedSince: utc(found.Before)}
	for _, t := range found.Tags[:min(limit, len(found.Tags))] {
		out.Tags = append(out.Tags, popularTagJSON{tagJSON{t.Name, t.Posts}, t.Before})
	}
	for _, t := range found.rising[:min(limit, len(found.rising))] {
		out.Rising = append(out.Rising, popularTagJSON{tagJSON{t.Name, t.Posts}, t.Before})
	}
	return jsonResponse(out)
}
