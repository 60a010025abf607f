package decode

import (
	"iter"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
)

// Item is one event of the firehose and its outcome.
type Item struct {
	Result
	Upstream *jetstream.Event
	At       event.Position
	// SyncEnd is the end of a #sync, if this event shows that it is over, else nil. It precedes
	// Event.
	SyncEnd *event.Event
}

// Replaces reports whether the item is one of the replacements of a #sync.
func (it *Item) Replaces() bool {
	return it.At.Sync.DID != "" && it.Upstream.Kind == jetstream.KindCommit
}

// Reading decodes the batches of one reading of the firehose, live or past, in order.
type Reading struct {
	Decoder
	before event.Position
}

// Items returns the events of the next batch, each decoded when it is reached.
func (r *Reading) Items(b firehose.Batch) iter.Seq[Item] {
	return func(yield func(Item) bool) {
		if len(b.Events) == 0 {
			r.before = b.Last // another host or another history begins, or nothing new
		}
		for i := range b.Events {
			it := Item{Result: r.Decode(&b.Events[i], b.Positions[i]), Upstream: &b.Events[i], At: b.Positions[i]}
			if it.Drop != BadPosition {
				if r.before.EndsBefore(it.At) {
					it.SyncEnd = r.before.Over()
				}
				r.before = it.At
			}
			if !yield(it) {
				return
			}
		}
	}
}
