package forward

import (
	"context"
	"iter"

	"golang.org/x/sync/semaphore"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	// queueBatches is how many batches of the live source may wait: enough for a full batch of the
	// stream, even if each has one event.
	queueBatches = stream.MaxBatch
	// gather stops at enough events: one more batch of the live source, some 64 events, might
	// exceed the stream's batch, and the rest would take another one.
	enough = stream.MaxBatch - 64
	// queueBytes is how much memory all of them together may take.
	queueBytes = 4 << 20
	// eventBytes is the approximate size of an event without its record.
	eventBytes = 512
)

// Batch is what a source delivers: events, and how far upstream was read with them. Both may be
// empty.
type Batch struct {
	Events   []*event.Event
	Position event.Position
	// weight is the batch's share of queueBytes.
	weight int64
}

// weigh returns the approximate memory of the batch. A single batch over the limit passes when the
// queue is empty.
func (b Batch) weigh() int64 {
	n := 0
	for _, e := range b.Events {
		n += eventBytes + len(e.Record)
	}
	return int64(min(n, queueBytes))
}

// queue has the batches of the live source that are not stored yet.
type queue struct {
	batches chan Batch
	room    *semaphore.Weighted
	err     error // the source's, set before batches is closed
}

func newQueue() *queue {
	return &queue{batches: make(chan Batch, queueBatches), room: semaphore.NewWeighted(queueBytes)}
}

// fill takes batches from a source until the source or ctx ends, and closes the queue.
func (q *queue) fill(ctx context.Context, source iter.Seq2[Batch, error]) {
	defer close(q.batches)
	for b, err := range source {
		if err != nil {
			q.err = err
			return
		}
		b.weight = b.weigh()
		if q.room.Acquire(ctx, b.weight) != nil {
			return
		}
		select {
		case q.batches <- b:
		case <-ctx.Done():
			return
		}
	}
}

// gather adds waiting batches to a batch, without waiting for more: at a low rate each event is
// stored at once; at a high rate batches fill up while the previous one is stored.
func (q *queue) gather(b Batch) Batch {
	for len(b.Events) <= enough {
		select {
		case next, more := <-q.batches:
			if !more {
				return b
			}
			b.Events = append(b.Events, next.Events...)
			b.weight += next.weight
			if !next.Position.IsZero() {
				b.Position = next.Position
			}
		default:
			return b
		}
	}
	return b
}

// stored frees the room of a batch.
func (q *queue) stored(b Batch) { q.room.Release(b.weight) }
