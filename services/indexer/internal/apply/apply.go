package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
)

// Reason says why a message became a dead letter.
type Reason string

// The reasons; the list is closed.
const (
	// ReasonVersion: the message was written by a newer program.
	ReasonVersion Reason = "unknown_version"
	// ReasonInvalid: the message is not an event of any version.
	ReasonInvalid Reason = "invalid"
	// ReasonRejected: Postgres refused what it says.
	ReasonRejected Reason = "rejected"
)

// Reasons lists them all.
var Reasons = []Reason{ReasonVersion, ReasonInvalid, ReasonRejected}

// Applier folds batches of messages into the index through one store.Writer.
type Applier struct {
	Writer *store.Writer
	// PutDeadLetter stores a dead letter durably before it returns.
	PutDeadLetter func(ctx context.Context, d stream.DeadLetter) error
	Logger        *slog.Logger
	// OnDeadLetter, if set, counts dead letters.
	OnDeadLetter func(Reason)
	// OnApplied, if set, hears of each event that was folded in, after the
	// commit.
	OnApplied func(*event.Event)
}

type numbered struct {
	seq uint64
	ev  *event.Event
}

// Apply folds the messages in and moves the checkpoint behind the last one, in
// one transaction. Messages that cannot be applied are put into the dead
// letters first. The error is the writer's (store.ErrLeaseLost) or that of a
// server: trying the same batch again is safe and right.
func (a *Applier) Apply(ctx context.Context, messages []stream.Message) error {
	err := a.applyOnce(ctx, messages)
	if !store.Rejected(err) {
		return err
	}
	// Postgres refuses something in the batch. Halve until it is found.
	if len(messages) > 1 {
		half := len(messages) / 2
		if err := a.Apply(ctx, messages[:half]); err != nil {
			return err
		}
		return a.Apply(ctx, messages[half:])
	}
	m := messages[0]
	if err := a.bury(ctx, m, ReasonRejected, err); err != nil {
		return err
	}
	return a.Writer.Apply(ctx, func(tx *store.Tx, from store.Checkpoint) (store.Checkpoint, error) {
		to := from
		if m.Seq > from.Seq {
			to.Seq = m.Seq
			tx.CountDeadLetters(1)
		}
		return to, nil
	})
}

func (a *Applier) applyOnce(ctx context.Context, messages []stream.Message) error {
	events, dead, err := a.decode(ctx, messages)
	if err != nil {
		return err
	}
	last := messages[len(messages)-1].Seq
	var applied []numbered
	err = a.Writer.Apply(ctx, func(tx *store.Tx, from store.Checkpoint) (store.Checkpoint, error) {
		to := from
		// The transaction before may have taken effect without our knowing.
		if last <= from.Seq {
			return to, nil
		}
		applied = applied[:0]
		for _, n := range events {
			if n.seq > from.Seq {
				applied = append(applied, n)
			}
		}
		for _, seq := range dead {
			if seq > from.Seq {
				tx.CountDeadLetters(1)
			}
		}
		sync, err := foldInto(ctx, tx, from.Sync, applied)
		if err != nil {
			return to, err
		}
		to.Seq, to.Sync = last, sync
		if len(applied) > 0 {
			to.Source = applied[len(applied)-1].ev.Source
		}
		return to, nil
	})
	if err != nil {
		return fmt.Errorf("apply messages %d to %d: %w", messages[0].Seq, last, err)
	}
	if a.OnApplied != nil {
		for _, n := range applied {
			a.OnApplied(n.ev)
		}
	}
	return nil
}

func foldInto(ctx context.Context, tx *store.Tx, sync store.PendingSync, events []numbered) (store.PendingSync, error) {
	f := newFold(sync)
	w := wanted(events, sync)
	rows, err := tx.Accounts(ctx, w.dids)
	if err != nil {
		return sync, err
	}
	for _, did := range w.dids {
		f.addAccount(did, rows[did])
	}
	f.wantWhole(events)
	var whole []*store.Account
	for did, a := range f.accounts {
		if a.whole && rows[did] != nil {
			whole = append(whole, rows[did])
		}
	}
	if err := tx.Posts(ctx, rows, w.ids, whole, f.addPost); err != nil {
		return sync, err
	}
	if err := tx.Removed(ctx, rows, w.ids, whole, f.addRemoved); err != nil {
		return sync, err
	}
	for _, n := range events {
		f.apply(n.seq, n.ev)
	}
	return f.sync, tx.Write(ctx, f.changes())
}

// decode reads the messages and buries those that are no events.
func (a *Applier) decode(ctx context.Context, messages []stream.Message) (events []numbered, dead []uint64, err error) {
	for _, m := range messages {
		ev, err := event.Decode(m.Data)
		if err == nil {
			events = append(events, numbered{m.Seq, ev})
			continue
		}
		reason := ReasonInvalid
		if errors.Is(err, event.ErrUnknownVersion) {
			reason = ReasonVersion
		}
		if err := a.bury(ctx, m, reason, err); err != nil {
			return nil, nil, err
		}
		dead = append(dead, m.Seq)
	}
	return events, dead, nil
}

// bury puts a message into the dead letters. It comes before the checkpoint
// moves: a crash in between buries the message twice, never not at all.
func (a *Applier) bury(ctx context.Context, m stream.Message, reason Reason, cause error) error {
	d := stream.DeadLetter{Seq: m.Seq, Reason: string(reason), Error: cause.Error(), At: time.Now().UTC(), Payload: m.Data}
	if err := a.PutDeadLetter(ctx, d); err != nil {
		return err
	}
	a.Logger.Error("message could not be applied; it is in the dead letters", "seq", m.Seq, "reason", reason, "err", cause)
	if a.OnDeadLetter != nil {
		a.OnDeadLetter(reason)
	}
	return nil
}
