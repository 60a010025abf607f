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

// silentAfter is how long nothing new must arrive before it counts as silence. On Bluesky something
// happens every second.
const silentAfter = 15 * time.Second

type statusJSON struct {
	Version string `json:"version"`
	// IndexedThrough is null until something is indexed.
	IndexedThrough *utc    `json:"indexedThrough"`
	Lag            lagJSON `json:"lag"`
	// SilentSince is null while something new arrives.
	SilentSince *utc           `json:"silentSince"`
	Checkpoint  checkpointJSON `json:"checkpoint"`
	Totals      totalsJSON     `json:"totals"`
	// Sweeping counts the accounts that are being swept.
	Sweeping int64        `json:"sweeping"`
	Stream   streamJSON   `json:"stream"`
	Database databaseJSON `json:"database"`
	// SeenAt is null before the indexer's first heartbeat.
	SeenAt *utc `json:"seenAt"`
}

type lagJSON struct {
	Messages uint64 `json:"messages"`
	// Seconds is null until something is indexed.
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
	return jsonResponse(statusJSON{
		Version:        h.version,
		IndexedThrough: timeOrNull(s.Checkpoint.Source.Time),
		Lag:            lag,
		SilentSince:    silent,
		Checkpoint: checkpointJSON{s.Checkpoint.Seq, sourceJSON{
			s.Checkpoint.Source.Host, s.Checkpoint.Source.Seq, timeOrNull(s.Checkpoint.Source.Time)}},
		Totals:   totalsJSON{s.Posts, s.VisiblePosts, s.Tags, s.DeadLetters},
		Sweeping: s.Sweeps,
		Stream:   streamJSON{s.StreamFirst, max(s.StreamLast, s.Checkpoint.Seq), s.StreamBytes},
		Database: databaseJSON{s.DatabaseBytes},
		SeenAt:   timeOrNull(s.SeenAt),
	})
}

// timeOrNull returns nil for the default values of times in Postgres.
func timeOrNull(t time.Time) *utc {
	if t.Unix() <= 0 {
		return nil
	}
	u := utc(t)
	return &u
}

// Check reads the state of the index, as /v1/status does. It returns an error if the database does
// not answer or lacks the schema. Call it every few seconds: it updates the metrics of the index
// and detects silence for /v1/status.
func (h *Handler) Check(ctx context.Context) error {
	s, err := h.index.Status(ctx)
	if err != nil {
		return err
	}
	lag, silent := h.freshness.observe(s)
	h.metrics.index.observe(s, lag, silent)
	return nil
}

// freshness measures how stale the index is. The lag is the age of the newest indexed event by the
// network's time; repeated positions from ingest do not reduce it. So the lag alone does not tell a
// quiet or unreachable network from an index that is catching up. While catching up, the position
// moves; freshness remembers when it last moved.
type freshness struct {
	mu     sync.Mutex
	source event.Position
	moved  time.Time // when source last changed or was first seen, by the database's clock
}

// observe returns the lag, and the time since which nothing new has arrived. That is nil if
// something arrived recently or may have: events wait to be indexed, or the indexer is not running.
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
	newest := s.Checkpoint.Source.Time
	seconds := math.Ceil(max(0, s.Now.Sub(newest).Seconds())*1e3) / 1e3
	lag.Seconds = &seconds
	if running := s.Now.Sub(s.SeenAt) < silentAfter; still && running && lag.Messages == 0 {
		silentSince = timeOrNull(newest)
	}
	return lag, silentSince
}
