package httpapi

import (
	"context"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// silentAfter is how long nothing new must have been heard to be called silence.
// On Bluesky something is said in every second.
const silentAfter = 15 * time.Second

type statusJSON struct {
	Version string `json:"version"`
	// IndexedThrough is null before anything was indexed.
	IndexedThrough *utc    `json:"indexedThrough"`
	Lag            lagJSON `json:"lag"`
	// SilentSince is null while something new comes in.
	SilentSince *utc           `json:"silentSince"`
	Checkpoint  checkpointJSON `json:"checkpoint"`
	Totals      totalsJSON     `json:"totals"`
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
	lag, silent := h.freshness.observe(s)
	res := &response{}
	return res, res.json(statusJSON{
		Version:        h.version,
		IndexedThrough: lateOrNull(s.Checkpoint.Source.Time),
		Lag:            lag,
		SilentSince:    silent,
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
	lag, silent := h.freshness.observe(s)
	h.metrics.index.observe(s, lag, silent)
	return nil
}

// freshness tells how stale the index is. Only something new proves it fresh: the
// network's own time of the newest that was read and indexed is the answer, and
// a position that ingest repeats moves nothing. So a network with nothing to say,
// and one that is no longer heard, look the same in the lag. What looks else is a
// catching-up, whose position moves: freshness remembers since when it stands still.
type freshness struct {
	mu     sync.Mutex
	source event.Position
	moved  time.Time // when it last did, or was first looked at, by the database's clock
}

// observe returns the lag, and since when nothing new was heard, nil where
// something was just now, or may have been: it is not indexed, or the indexer away.
func (f *freshness) observe(s query.Status) (lag lagJSON, silentSince *utc) {
	f.mu.Lock()
	if f.source != s.Checkpoint.Source || f.moved.IsZero() {
		f.source, f.moved = s.Checkpoint.Source, s.Now
	}
	still := s.Now.Sub(f.moved) >= silentAfter
	f.mu.Unlock()

	if s.StreamLast > s.Checkpoint.Seq {
		lag.Messages = s.StreamLast - s.Checkpoint.Seq
	}
	if s.Checkpoint.Seq == 0 {
		return lag, nil
	}
	heard := s.Checkpoint.Source.Time
	seconds := math.Ceil(max(0, s.Now.Sub(heard).Seconds())*1e3) / 1e3
	lag.Seconds = &seconds
	if seen := s.Now.Sub(s.SeenAt) < silentAfter; still && seen && lag.Messages == 0 {
		silentSince = lateOrNull(heard)
	}
	return lag, silentSince
}
