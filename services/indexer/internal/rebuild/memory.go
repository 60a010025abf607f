package rebuild

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// memory applies messages of a stream from which payloads of removed posts were
// erased. Such a removal finds nothing to remove, and would leave no marker to
// keep an older event out: the live index remembers which ones it had.
type memory struct {
	js      jetstream.JetStream
	writer  *store.Writer
	applier *apply.Applier
	// gaps says that something was erased.
	gaps bool
}

// apply applies messages as the applier does.
func (m *memory) apply(ctx context.Context, batch []stream.Message) error {
	if !m.gaps {
		var err error
		if m.gaps, err = stream.HasGaps(ctx, m.js); err != nil {
			return err
		}
	}
	if !m.gaps {
		return m.applier.Apply(ctx, batch)
	}
	for len(batch) > 0 {
		n, err := m.recall(ctx, batch)
		if err != nil {
			return err
		}
		if err := m.applier.Apply(ctx, batch[:n]); err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// recall prepares for the first messages of a batch and returns how many: up to
// one that erases an account, which must not find markers of removals behind it.
func (m *memory) recall(ctx context.Context, batch []stream.Message) (int, error) {
	var removals []store.Removal
	var erased []string
	n := 0
	for n < len(batch) && erased == nil {
		msg := batch[n]
		n++
		ev, err := event.Decode(msg.Data)
		if err != nil {
			continue
		}
		switch ev.Kind {
		case event.KindDelete, event.KindRemove:
			removals = append(removals, store.Removal{
				Version: store.Version{DID: ev.DID, Rkey: ev.Rkey, Rev: ev.Rev}, At: ev.Source.Time, Seq: msg.Seq,
			})
		case event.KindAccount:
			if !ev.Active && ev.Status == "deleted" {
				erased = []string{ev.DID}
			}
		}
	}
	if len(removals)+len(erased) == 0 {
		return n, nil
	}
	return n, m.writer.Recall(ctx, removals, erased)
}

// pass moves the rebuilt index to the live one's checkpoint, where the stream has
// no message up to there any more.
func (m *memory) pass(ctx context.Context, owner *store.Owner, live uint64) error {
	cp, _, err := owner.CheckpointOf(ctx, store.Live)
	if err != nil {
		return err
	}
	// A position at the live one's: it continues a #sync that continues there.
	nothing := event.Event{Kind: event.KindPosition, Source: cp.Source}
	data, err := nothing.Encode()
	if err != nil {
		return fmt.Errorf("pass message %d, which was erased: %w", live, err)
	}
	return m.applier.Apply(ctx, []stream.Message{{Seq: live, Data: data}})
}
