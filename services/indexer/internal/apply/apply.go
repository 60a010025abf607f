package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
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

// ReasonOf returns the reason for which a message that causes err is a dead letter; ok is false if
// err is of another kind, possibly temporary.
func ReasonOf(err error) (reason Reason, ok bool) {
	switch {
	case errors.Is(err, event.ErrUnknownVersion):
		return ReasonVersion, true
	case errors.Is(err, event.ErrInvalid):
		return ReasonInvalid, true
	case write.Rejected(err):
		return ReasonRejected, true
	}
	return "", false
}

const (
	// batchTimeout bounds one batch. A batch that takes longer is halved, like one that Postgres
	// refuses; a single message gets singleTimeout.
	batchTimeout  = 30 * time.Second
	singleTimeout = 10 * time.Minute
	// defaultBigAccount is the default of Applier.BigAccount. The smaller accounts of a batch
	// together have at most smallAccountsFactor times as many posts.
	defaultBigAccount   = 2000
	smallAccountsFactor = 10
	// deadLetterPuts is how many dead letters are put at once: each waits for a disk.
	deadLetterPuts = 32
)

// Applier folds batches of messages into the index through one write.Writer.
type Applier struct {
	Writer *write.Writer
	// PutDeadLetter stores a dead letter durably before it returns. It is called from several
	// goroutines.
	PutDeadLetter func(ctx context.Context, d stream.DeadLetter) error
	Logger        *slog.Logger
	// BigAccount is the number of posts from which an account is not hidden, shown or erased in one
	// transaction, but swept: see write.Sweep. 0 means 2000. The smaller accounts of a batch
	// together have at most ten times as many posts; accounts beyond that are swept too.
	BigAccount int
	// Timeout bounds one batch of several messages; 0 means 30 s.
	Timeout time.Duration
	// Batch is how many messages the next batch should have at most. A full batch doubles it; one
	// that takes too long makes it half of that batch, and after that it grows slowly.
	Batch  int
	slowed bool
	// LiveKeys, if set, looks up the keys of posts in the live index. A post that enters the index
	// gets its live key, if there is one, instead of a key made from its event.
	LiveKeys func(ctx context.Context, ids []write.PostID) (map[write.PostID]event.Key, error)
	// OnDeadLetter, if set, counts dead letters, after the commit.
	OnDeadLetter func(Reason)
	// OnApplied, if set, is called with each folded event, after the commit.
	OnApplied func(*event.Event)
	// Tracer, if set, traces batches with traced messages. A replay of the stream sets none.
	Tracer trace.Tracer
}

// Step is an event with its number in the stream.
type Step struct {
	Seq   uint64
	Event *event.Event
}

// rejected is a message that cannot be applied.
type rejected struct {
	message stream.Message
	reason  Reason
	cause   error
}

// Apply folds the messages and moves the checkpoint past the last one, in one transaction or, if
// that is refused or takes too long, in several. It first stores messages that cannot be applied as
// dead letters. The error is the writer's (write.ErrLeaseLost) or that of a server: the same batch
// can safely be retried.
func (a *Applier) Apply(ctx context.Context, messages []stream.Message) error {
	limit := cmp.Or(a.Timeout, batchTimeout)
	if len(messages) == 1 {
		limit = singleTimeout
	}
	attempt, cancel := context.WithTimeout(ctx, limit)
	err := a.applyOnce(attempt, messages, nil)
	cancel()
	tooSlow := err != nil && ctx.Err() == nil && attempt.Err() != nil
	a.pace(len(messages), err == nil, tooSlow)
	switch {
	case len(messages) > 1 && (write.Rejected(err) || tooSlow):
		half := len(messages) / 2
		if err := a.Apply(ctx, messages[:half]); err != nil {
			return err
		}
		return a.Apply(ctx, messages[half:])
	case write.Rejected(err):
		return a.applyOnce(ctx, nil, []rejected{{messages[0], ReasonRejected, err}})
	}
	return err
}

// pace sets the size of the next batch after one of n messages. A batch that was too slow would be
// too slow again. The lease has expired by then, so each new holder could fail on the same batch.
func (a *Applier) pace(n int, done, tooSlow bool) {
	switch {
	case tooSlow && n > 1:
		a.Batch, a.slowed = n/2, true
	case done && n >= a.Batch && a.slowed:
		a.Batch += a.Batch/16 + 1
	case done && n >= a.Batch:
		a.Batch *= 2
	}
}

// applyOnce applies messages, and stores those that are not events, and dead, as dead letters.
func (a *Applier) applyOnce(ctx context.Context, messages []stream.Message, dead []rejected) (err error) {
	ctx, end := a.trace(ctx, messages)
	defer func() { end(err) }()
	var events []Step
	var first, last uint64
	for _, d := range dead {
		first, last = d.message.Seq, d.message.Seq
	}
	for _, m := range messages {
		first, last = cmp.Or(first, m.Seq), m.Seq
		ev, err := m.Event()
		switch {
		case err == nil:
			events = append(events, Step{m.Seq, ev})
		case errors.Is(err, event.ErrUnknownVersion):
			dead = append(dead, rejected{m, ReasonVersion, err})
		default:
			dead = append(dead, rejected{m, ReasonInvalid, err})
		}
	}
	if err := a.putDeadLetters(ctx, dead); err != nil {
		return err
	}
	var applied []Step
	var buried []rejected
	ctx, endTx := a.traceTransaction(ctx)
	err = a.Writer.Apply(ctx, func(tx *write.Tx, from store.Checkpoint) (store.Checkpoint, error) {
		to := from
		// The previous transaction may have taken effect without our knowledge.
		if last <= from.Seq {
			return to, nil
		}
		applied = slices.DeleteFunc(slices.Clone(events), func(s Step) bool { return s.Seq <= from.Seq })
		buried = slices.DeleteFunc(slices.Clone(dead), func(d rejected) bool { return d.message.Seq <= from.Seq })
		tx.CountDeadLetters(len(buried))
		sync, err := a.foldInto(ctx, tx, from.Sync, applied)
		if err != nil {
			return to, err
		}
		to.Seq, to.Sync = last, sync
		if len(applied) > 0 {
			to.Source = applied[len(applied)-1].Event.ResumeAt()
		}
		if len(applied) == 0 || applied[len(applied)-1].Seq != last {
			to.Source.Seq = 0 // a dead letter is at the checkpoint
		}
		return to, nil
	})
	endTx(err)
	if err != nil {
		return fmt.Errorf("apply messages %d to %d: %w", first, last, err)
	}
	for _, d := range buried {
		a.Logger.Error("message could not be applied; it is now a dead letter", "seq", d.message.Seq, "reason", d.reason, "err", d.cause)
		if a.OnDeadLetter != nil {
			a.OnDeadLetter(d.reason)
		}
	}
	if a.OnApplied != nil {
		for _, s := range applied {
			a.OnApplied(s.Event)
		}
	}
	return nil
}

// putDeadLetters stores messages as dead letters before the checkpoint moves: a crash in between
// stores them twice, never not at all.
func (a *Applier) putDeadLetters(ctx context.Context, dead []rejected) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(deadLetterPuts)
	for _, d := range dead {
		g.Go(func() error {
			return a.PutDeadLetter(ctx, stream.DeadLetter{
				Seq: d.message.Seq, Reason: string(d.reason), Error: d.cause.Error(), At: time.Now().UTC(), Payload: d.message.Data,
			})
		})
	}
	return g.Wait()
}

// foldInto folds events over their rows, and writes the difference.
func (a *Applier) foldInto(ctx context.Context, tx *write.Tx, sync event.SyncRun, events []Step) (event.SyncRun, error) {
	f := newFold(sync)
	dids, posts := touched(events, sync)
	if err := f.consent(ctx, tx, dids...); err != nil {
		return sync, err
	}
	rows, err := tx.Accounts(ctx, dids)
	if err != nil {
		return sync, err
	}
	for _, did := range dids {
		f.addAccount(did, rows[did])
	}
	full, err := a.accountsInFull(ctx, tx, f, rows, events)
	if err != nil {
		return sync, err
	}
	if err := tx.Load(ctx, rows, posts, full, f.addPost, f.addRemoved); err != nil {
		return sync, err
	}
	if a.LiveKeys != nil {
		if f.liveKeys, err = a.LiveKeys(ctx, posts); err != nil {
			return sync, err
		}
	}
	for _, s := range events {
		f.apply(s.Seq, s.Event)
	}
	c := f.changes()
	traceChanges(ctx, len(events), c)
	return f.sync, tx.Write(ctx, c)
}

// accountsInFull returns the accounts of which all posts and markers must be loaded, and marks those
// that have too many of them: events sweep these instead.
func (a *Applier) accountsInFull(ctx context.Context, tx *write.Tx, f *fold, rows map[string]*write.Account, events []Step) ([]*write.Account, error) {
	var full []*write.Account
	for did := range f.changedInFull(events) {
		if rows[did] != nil {
			full = append(full, rows[did])
		}
	}
	if len(full) == 0 {
		return nil, nil
	}
	limit := cmp.Or(a.BigAccount, defaultBigAccount)
	big, err := tx.Big(ctx, full, limit, smallAccountsFactor*limit)
	if err != nil {
		return nil, err
	}
	for row := range big {
		acc := f.accounts[row.DID]
		acc.big = true
		if slices.ContainsFunc(events, func(s Step) bool { return s.Event.DID == row.DID && s.Event.Erases() }) {
			if acc.maxRev, err = tx.HighestRev(ctx, row); err != nil {
				return nil, err
			}
		}
	}
	return slices.DeleteFunc(full, func(row *write.Account) bool { return big[row] }), nil
}
