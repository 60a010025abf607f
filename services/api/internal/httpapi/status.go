package httpapi

import (
	"context"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
)

// settled is how long the upstream position must have stood still to be taken
// for a quiet network rather than for one that is being caught up with. Ingest
// writes its position at least every 10 s.
const settled = 15 * time.Second

type statusJSON struct {
	Version string `json:"version"`
	// IndexedThrough is null before anything was indexed.
	IndexedThrough *utc           `json:"indexedThrough"`
	Lag            lagJSON        `json:"lag"`
	Checkpoint     checkpointJSON `json:"checkpoint"`
	Totals         totalsJSON     `json:"totals"`
	// Sweeping counts the accounts with many posts that are being hidden, shown
	// again or erased just now.
	Sweeping int64        `json:"sweeping"`
	Stream   streamJSON   `json:"stream"`
	Database databaseJSON `json:"database"`
	// SeenAt is null before the indexer's first heartbeat.
	SeenAt *utc `json:"seenAt"`
}

type lagJSON struct {
	Messages uint64 `json:"messages"`
	// Seconds is null before anything was indexed.
	Seconds *float64 `json:"seconds"`
}

type checkpointJSON struct {
	Seq    uint64     `json:"seq"`
	Source sourceJSON `json:"source"`
}

type sourceJSON struct {
	Host string `json:"host"`
	Seq  uint64 `json:"seq"`
	Time *utc   `json:"time"`
}

type totalsJSON struct {
	Posts        int64 `json:"posts"`
	VisiblePosts int64 `json:"visiblePosts"`
	Tags         int64 `json:"tags"`
	DeadLetters  int64 `json:"deadLetters"`
}

type streamJSON struct {
	FirstSeq uint64 `json:"firstSeq"`
	LastSeq  uint64 `json:"lastSeq"`
	Bytes    uint64 `json:"bytes"`
}

type databaseJSON struct {
	Bytes int64 `json:"bytes"`
}

// status is /v1/status.
func (h *Handler) status(r *http.Request) (*response, error) {
	if _, err := parseQuery(r.URL.RawQuery, params{}); err != nil {
		return nil, err
	}
	s, err := h.index.Status(r.Context())
	if err != nil {
		return nil, err
	}
	lag := h.freshness.observe(s)
	res := &response{}
	return res, res.json(statusJSON{
		Version:        h.version,
		IndexedThrough: lateOrNull(s.Checkpoint.Source.Time),
		Lag:            lag,
		Checkpoint: checkpointJSON{s.Checkpoint.Seq, sourceJSON{
			s.Checkpoint.Source.Host, s.Checkpoint.Source.Seq, lateOrNull(s.Checkpoint.Source.Time)}},
		Totals:   totalsJSON{s.Posts, s.VisiblePosts, s.Tags, s.DeadLetters},
		Sweeping: s.Sweeps,
		Stream:   streamJSON{s.StreamFirst, max(s.StreamLast, s.Checkpoint.Seq), s.StreamBytes},
		Database: databaseJSON{s.DatabaseBytes},
		SeenAt:   lateOrNull(s.SeenAt),
	})
}

// lateOrNull is null for the times that Postgres has before there are any.
func lateOrNull(t time.Time) *utc {
	if t.Unix() <= 0 {
		return nil
	}
	u := utc(t)
	return &u
}

// Check reads the index's condition, as /v1/status does, and so tells whether
// the database answers and has the schema. Call it every few seconds: the lag
// in /v1/status is better for it, and the metrics of the index are its own.
func (h *Handler) Check(ctx context.Context) error {
	s, err := h.index.Status(ctx)
	if err != nil {
		return err
	}
	h.metrics.index.observe(s, h.freshness.observe(s))
	return nil
}

// freshness tells how stale the index is. The age of the newest upstream event
// applied is the answer, except where upstream has nothing to say: then that
// age grows although nothing is missing. Such a quiet network and a long
// catching-up look the same at any one moment, both having old events applied
// just now; so it remembers since when the position stands still.
type freshness struct {
	mu     sync.Mutex
	source event.Position
	moved  time.Time // database's clock; zero before a move was seen
}

func (f *freshness) observe(s store.Status) lagJSON {
	f.mu.Lock()
	if f.source != s.Checkpoint.Source {
		if !f.source.IsZero() {
			f.moved = s.Now
		}
		f.source = s.Checkpoint.Source
	}
	still := s.Now.Sub(f.moved) >= settled
	f.mu.Unlock()

	var lag lagJSON
	if s.StreamLast > s.Checkpoint.Seq {
		lag.Messages = s.StreamLast - s.Checkpoint.Seq
	}
	if s.Checkpoint.Seq == 0 {
		return lag
	}
	complete := s.Checkpoint.Source.Time
	if lag.Messages == 0 && still && s.AppliedAt.After(complete) {
		// Ingest repeated its position, and that is all the stream has.
		complete = s.AppliedAt
	}
	seconds := math.Round(max(0, s.Now.Sub(complete).Seconds())*1e3) / 1e3
	lag.Seconds = &seconds
	return lag
}
