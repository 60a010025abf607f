package replay

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// memory applies messages of a stream that lacks some: payloads of removed posts
// were erased, or its beginning was trimmed off. Such a removal finds nothing to
// remove, and would leave no marker to keep an older event out: the live index
// remembers which ones it had.
type memory struct {
	js      jetstream.JetStream
	writer  *write.Writer
	applier *apply.Applier
	// gaps says that something is missing.
	gaps bool
}

// apply applies messages as the applier does.
func (m *memory) apply(ctx context.Context, batch []stream.Message) error {
	if gaps, err := m.look(ctx); err != nil {
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

// look reports whether something is missing by now.
func (m *memory) look(ctx context.Context) (gaps bool, err error) {
	if !m.gaps {
		m.gaps, err = stream.HasGaps(ctx, m.js)
	}
	return m.gaps, err
}

// recall prepares for the first messages of a batch and returns how many: up to
// one that erases an account, which must not find markers of removals behind it.
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

// pass folds in a position in the place of messages up to seq that were erased.
func (m *memory) pass(ctx context.Context, seq uint64, at event.Position) error {
	// It ends no #sync: what was erased did not either, and the leader's may continue.
	nothing := event.Event{Kind: event.KindPosition, Source: at, Sync: event.SyncOpen}
	data, err := nothing.Encode()
	if err != nil {
		return err
	}
	return m.applier.Apply(ctx, []stream.Message{{Seq: seq, Data: data}})
}
