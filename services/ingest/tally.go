package ingest

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/ingest/internal/decode"
)

// tally keeps the counts for the log, like metrics for monitoring.
type tally struct {
	metrics *metrics

	mu          sync.Mutex // guards what follows
	counts      counts
	first, last event.Position // of the events read
	received    time.Time      // when the last was
}

type counts struct {
	read, kept, published, tagsDropped uint64
	dropped                            map[decode.DropReason]uint64
}

// countRead counts an event that was read, and its outcome.
func (t *tally) countRead(ev *jetstream.Event, res decode.Result) {
	t.metrics.read.WithLabelValues(readKind(ev)).Inc()
	t.metrics.tagsDropped.Add(float64(res.TagsDropped))
	if res.TimeRefused {
		t.metrics.timesRefused.Inc()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.read++
	t.counts.tagsDropped += uint64(res.TagsDropped)
	if res.Drop == decode.Kept {
		t.counts.kept++
		return
	}
	t.metrics.dropped.WithLabelValues(string(res.Drop)).Inc()
	if t.counts.dropped == nil {
		t.counts.dropped = map[decode.DropReason]uint64{}
	}
	t.counts.dropped[res.Drop]++
}

// progress records a batch from first to last.
func (t *tally) progress(first, last event.Position, now time.Time) {
	t.metrics.upstreamSeq.Set(float64(last.Seq))
	t.metrics.eventTime.Set(float64(last.NetworkTime().UnixMicro()) / 1e6)
	t.metrics.receivedTime.Set(float64(now.UnixMicro()) / 1e6)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first.IsZero() {
		t.first = first
	}
	t.last, t.received = last, now
}

// countPublished counts events that are in the stream.
func (t *tally) countPublished(events []*event.Event) {
	var posts uint64
	for _, e := range events {
		t.metrics.published.WithLabelValues(string(e.Kind)).Inc()
		if e.Kind != event.KindPosition {
			posts++
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.published += posts
}

// snapshot returns the counts so far and the extent of what was read.
func (t *tally) snapshot() (c counts, first, last event.Position, received time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c = t.counts
	c.dropped = maps.Clone(c.dropped)
	return c, t.first, t.last, t.received
}

// since returns the counts since an earlier snapshot.
func (c counts) since(before counts) counts {
	d := counts{
		read: c.read - before.read, kept: c.kept - before.kept, published: c.published - before.published,
		tagsDropped: c.tagsDropped - before.tagsDropped, dropped: map[decode.DropReason]uint64{},
	}
	for why, n := range c.dropped {
		if n -= before.dropped[why]; n > 0 {
			d.dropped[why] = n
		}
	}
	return d
}

// attrs returns the counts for a log line, without reasons that never occurred.
func (c counts) attrs() []any {
	var dropped []any
	for _, why := range slices.Sorted(maps.Keys(c.dropped)) {
		dropped = append(dropped, slog.Uint64(string(why), c.dropped[why]))
	}
	return []any{
		slog.Uint64("read", c.read), slog.Uint64("kept", c.kept), slog.Uint64("published", c.published),
		slog.Uint64("tags_dropped", c.tagsDropped), slog.Group("dropped", dropped...),
	}
}

func readKind(ev *jetstream.Event) string {
	switch {
	case ev.Kind == jetstream.KindAccount:
		return readAccount
	case ev.Kind == jetstream.KindSync:
		return readSync
	case ev.Kind == jetstream.KindIdentity:
		return readIdentity
	case ev.Kind != jetstream.KindCommit || ev.Commit == nil:
		return readOther
	case ev.Commit.Collection == event.ProfileCollection:
		return readProfile
	}
	switch ev.Commit.Operation {
	case jetstream.OpCreate:
		return readCreate
	case jetstream.OpUpdate:
		return readUpdate
	case jetstream.OpDelete:
		return readDelete
	}
	return readOther
}
