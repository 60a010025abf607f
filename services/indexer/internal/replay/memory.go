package replay

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// memory applies messages of an incomplete stream: payloads of removed posts were erased, or its
// beginning was trimmed. A removal then finds no post, and would leave no marker to keep an older
// event out; but the live index remembers the removals.
type memory struct {
	js      jetstream.JetStream
	writer  *write.Writer
	applier *apply.Applier
	// gaps reports that messages are missing.
	gaps bool
}

// apply applies messages like the applier.
func (m *memory) apply(ctx context.Context, batch []stream.Message) error {
	if gaps, err := m.hasGaps(ctx); err != nil {
		return err
	} else if !gaps {
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

// hasGaps reports whether messages are missing by now.
func (m *memory) hasGaps(ctx context.Context) (gaps bool, err error) {
	if !m.gaps {
		m.gaps, err = stream.HasGaps(ctx, m.js)
	}
	return m.gaps, err
}

// recall prepares for the first messages of a batch and returns how many: up to one that erases an
// account, which must find no markers of later removals.
func (m *memory) recall(ctx context.Context, batch []stream.Message) (int, error) {
	var removals []write.Removal
	var erased []string
	n := 0
	for n < len(batch) && erased == nil {
		msg := batch[n]
		n++
		ev, err := msg.Event()
		if err != nil {
			continue
		}
		switch ev.Kind {
		case event.KindDelete, event.KindRemove:
			removals = append(removals, write.Removal{
				Version: write.Version{DID: ev.DID, Rkey: ev.Rkey, Rev: ev.Rev}, At: ev.Source.NetworkTime(), Seq: msg.Seq,
			})
		case event.KindAccount:
			if ev.Erases() {
				erased = []string{ev.DID}
			}
		}
	}
	if len(removals)+len(erased) == 0 {
		return n, nil
	}
	return n, m.writer.Recall(ctx, removals, erased)
}

// skipTo folds a position in place of erased messages up to seq.
func (m *memory) skipTo(ctx context.Context, seq uint64, at event.Position) error {
	// It ends no #sync: the erased messages did not either, and the reference's may continue.
	nothing := event.Event{Kind: event.KindPosition, Source: at, Sync: event.SyncOpen}
	data, err := nothing.Encode()
	if err != nil {
		return err
	}
	return m.applier.Apply(ctx, []stream.Message{{Seq: seq, Data: data}})
}
