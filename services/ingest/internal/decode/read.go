package decode

import (
	"iter"
	"time"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
)

// Batch is a batch of the firehose, decoded.
type Batch struct {
	// Items are its events, each decoded when its turn comes.
	Items iter.Seq[Item]
	// Positions are where they stand, and Last how far upstream was read with them.
	Positions []event.Position
	Last      event.Position
	Received  time.Time
}

// Item is one event of the firehose and its outcome.
type Item struct {
	Result
	Upstream *jetstream.Event
	At       event.Position
	// SyncEnd is the end of a #sync, if this event shows that it is over, else nil. It comes before
	// Event.
	SyncEnd *event.Event
}

// Replaces reports whether it is one of the replacements behind a #sync.
func (it *Item) Replaces() bool {
	return it.At.Sync.DID != "" && it.Upstream.Kind == jetstream.KindCommit
}

// Read decodes what the firehose gives. Every event takes this way, live or of the past.
func (d Decoder) Read(batches iter.Seq2[firehose.Batch, error]) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		var before event.Position
		for b, err := range batches {
			if err != nil {
				yield(Batch{}, err)
				return
			}
			if len(b.Events) == 0 {
				before = b.Last // another host or another history begins, or nothing new
			}
			out := Batch{Positions: b.Positions, Last: b.Last, Received: time.Now()}
			out.Items = func(yield func(Item) bool) {
				for i := range b.Events {
					it := Item{Result: d.Decode(&b.Events[i], b.Positions[i]), Upstream: &b.Events[i], At: b.Positions[i]}
					if it.Drop != BadPosition {
						if before.EndsBefore(it.At) {
							it.SyncEnd = before.Over()
						}
						before = it.At
					}
					if !yield(it) {
						return
					}
				}
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}
