// Package rebuild folds the stream into a second schema through the code that indexes live,
// compares it with the live index, and makes it the live one in a single transaction. During all of
// this the live index is read and written as usual.
//
// A rebuild can be interrupted at any point and started again: the new schema has its own
// checkpoint. A crash during the switch leaves it done or not done.
//
// If the stream was trimmed, the new index starts with what the live one has of the trimmed time.
// If the live index is of another stream, for example after a restore, the new one is switched in
// once it is as recent in upstream time and lacks nothing.
package rebuild

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
	"github.com/tagstream/tagstream/services/indexer/internal/replay"
)

// ErrTrimmed is returned if the stream no longer has its beginning and the live index cannot
// replace it: a rebuilt index would silently lack posts of the live one.
var ErrTrimmed = errors.New("the stream no longer has its beginning, so a rebuilt index would lack posts that the live one has")

var errRunning = errors.New("another rebuild is running")

const (
	// nearEnd is how many messages may be missing when the new schema is vacuumed and switched in;
	// later ones are applied afterwards.
	nearEnd = 10_000
	// atEnd is how many may be missing when the live indexer is stopped for the switch.
	atEnd = 2000
	// grace is how long requests that started on the former schema may last.
	grace = 6 * time.Second
)

// Rebuild is one run of a rebuild.
type Rebuild struct {
	JS       jetstream.JetStream
	Database store.Options // with the owner's role
	ID       string        // unique to the run
	// Restart drops the remains of an interrupted run instead of continuing it.
	Restart bool
	// AcceptDifferences switches to the new index even if it differs from the live one, or is not
	// as recent in upstream time as one of another stream.
	AcceptDifferences bool
	Logger            *slog.Logger
	Progress          obs.Progress

	owner *write.Owner
	plan  plan
	// recalled reports that the live index's floors were copied.
	recalled bool
	// same reports that this run found no difference from the live index.
	same bool
}

// Run rebuilds and switches. It returns the number of messages replayed.
func (r *Rebuild) Run(ctx context.Context) (uint64, error) {
	r.owner = write.NewOwner(r.Database)
	// Remains of a switch that was killed before its clean-up.
	if err := r.owner.Drop(ctx, store.Retired); err != nil {
		return 0, err
	}
	if r.Restart {
		if err := r.drop(ctx); err != nil {
			return 0, fmt.Errorf("rebuild: %w", err)
		}
	}
	if err := r.prepare(ctx); err != nil {
		return 0, fmt.Errorf("rebuild: %w", err)
	}
	o := r.Database
	o.Schema = store.Rebuilding
	if err := store.Migrate(ctx, o, r.Logger); err != nil {
		return 0, err
	}
	w, err := write.Open(ctx, o, r.ID)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	var replayed uint64
	err = w.Lead(ctx, w.Acquire, func(cp store.Checkpoint) (err error) {
		replayed, err = r.lead(ctx, w, cp.Seq)
		return err
	})
	if errors.Is(err, write.ErrLeaseHeld) {
		err = fmt.Errorf("rebuild: %w", errRunning)
	}
	if err != nil {
		return replayed, err
	}
	r.Progress.Say("switched; removing the former index")
	select {
	case <-ctx.Done():
		return replayed, nil // the next rebuild removes it
	case <-time.After(grace):
	}
	if err := r.owner.Drop(ctx, store.Retired); err != nil {
		return replayed, fmt.Errorf("the new index is live, but removing the former one failed: %w", err)
	}
	return replayed, nil
}

// lead fills the new index from a message on and switches it in, and returns how many messages it
// replayed.
func (r *Rebuild) lead(ctx context.Context, w *write.Writer, from uint64) (uint64, error) {
	if from == 0 && !r.plan.foreign {
		if err := w.ListLater(ctx); err != nil {
			return 0, err
		}
	}
	switch {
	case from > 0:
		r.Progress.Say(fmt.Sprintf("continuing an interrupted rebuild from message %d", from))
	case r.plan.carry:
		if err := r.carryOver(ctx, w); err != nil {
			return 0, err
		}
		fallthrough
	default:
		from = r.plan.first - 1
	}
	if !w.Listing() { // otherwise the interrupted run did it
		if err := r.consent(ctx, w); err != nil {
			return 0, err
		}
	}
	p, err := replay.Open(ctx, replay.Config{
		JS: r.JS, Writer: w, Logger: r.Logger, Database: r.Database, Leader: store.Live,
		// Store even those that became dead letters when they were applied live: a program that
		// could apply one may have redriven and removed it.
		PutDeadLetter: func(ctx context.Context, d stream.DeadLetter) error { return stream.PutDeadLetter(ctx, r.JS, d) },
	}, from)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if w.Listing() || r.plan.foreign {
		if err := r.list(ctx, p, w); err != nil {
			return 0, err
		}
	}
	err = r.replay(ctx, p, w)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("rebuild interrupted at message %d; run it again to continue: %w", p.At(), context.Cause(ctx))
	}
	return p.At() - from, err
}

// consent makes the new index hide what the live one hides by its settings: accounts that have
// opted out, and those that the operator denies.
func (r *Rebuild) consent(ctx context.Context, w *write.Writer) error {
	ignore, err := w.LiveIgnoresConsent(ctx)
	if err != nil {
		return err
	}
	var deny apply.Deny
	if deny.Accounts, deny.Tags, err = w.LiveDenied(ctx); err != nil {
		return err
	}
	return (&apply.Applier{Writer: w, Logger: r.Logger}).Consent(ctx, ignore, deny)
}

// replay brings the new index to the live one's checkpoint, where the two are compared, then to the
// stream's end, and switches it in.
func (r *Rebuild) replay(ctx context.Context, p *replay.Replay, w *write.Writer) error {
	if !r.plan.foreign {
		if err := r.meet(ctx, p, w); err != nil {
			return err
		}
	}
	p.Forget()
	vacuumed := !r.plan.foreign
	checked, waiting := false, false
	for {
		st, err := stream.GetState(ctx, r.JS)
		if err != nil {
			return err
		}
		r.Progress.At(p.At(), st.Last)
		switch {
		case p.At()+nearEnd >= st.Last && !vacuumed:
			if err := r.vacuum(ctx, w); err != nil {
				return err
			}
			vacuumed = true
			continue
		case p.At()+atEnd < st.Last || w.Sweeping():
		case !r.plan.foreign:
			err := r.owner.Switch(ctx, r.same, func(ctx context.Context, seq uint64) error { return r.atSwitch(ctx, p, w, seq) })
			if errors.Is(err, errSettings) {
				break
			}
			return r.switched(ctx, err)
		default:
			reached, err := r.reached(ctx, w)
			if err != nil {
				return err
			}
			if !reached {
				if !waiting {
					waiting = true
					r.Progress.Say("waiting until ingest has brought the stream to " + r.plan.live.Source.Time.Format(time.RFC3339) + " of upstream time, like the live index")
				}
				break
			}
			if !checked {
				if err := r.checkConflicts(ctx, p, w); err != nil {
					return err
				}
				checked = true
				if err := r.consent(ctx, w); err != nil {
					return err
				}
				continue
			}
			return r.switched(ctx, r.owner.SwitchStream(ctx))
		}
		if err := p.Sweep(ctx); err != nil {
			return err
		}
		if _, err := p.Next(ctx, math.MaxInt64); err != nil {
			return err
		}
	}
}

// errSettings says that the live index's settings have changed since the comparison.
var errSettings = errors.New("accounts must be hidden or shown first")

// atSwitch brings the new index to where the live one waits.
func (r *Rebuild) atSwitch(ctx context.Context, p *replay.Replay, w *write.Writer, seq uint64) error {
	err := p.To(ctx, seq)
	if err == nil && !r.recalled {
		err = r.recallFloors(ctx, p)
	}
	swept := w.Sweeping()
	if err == nil {
		err = r.consent(ctx, w)
	}
	if err == nil && w.Sweeping() && !swept {
		err = errSettings
	}
	return err
}

// meet brings the new index to the live one's checkpoint and compares the two. If the live index is
// idle, this is the only comparison.
func (r *Rebuild) meet(ctx context.Context, p *replay.Replay, w *write.Writer) error {
	vacuumed := false
	for {
		live, _, err := r.owner.CheckpointOf(ctx, store.Live)
		if err != nil {
			return err
		}
		r.Progress.At(p.At(), live.Seq)
		more := p.At() < live.Seq
		for batches := 0; more && p.At()+atEnd < live.Seq && batches < 10; batches++ {
			if err := p.Sweep(ctx); err != nil {
				return err
			}
			if more, err = p.Next(ctx, live.Seq); err != nil {
				return err
			}
			r.Progress.At(p.At(), live.Seq)
		}
		switch {
		case more && p.At()+atEnd < live.Seq:
		case !vacuumed:
			if err := r.list(ctx, p, w); err != nil {
				return err
			}
			if err := r.vacuum(ctx, w); err != nil {
				return err
			}
			vacuumed = true
		case live.Seq == 0 || p.At() > live.Seq:
			return nil // nothing to compare, or it was done before the interruption
		case w.Sweeping():
			// Here, not while the live index waits.
			if err := p.Settle(ctx); err != nil {
				return err
			}
		default:
			if err := r.compare(ctx, p, w); err != nil {
				return err
			}
			return r.catchUp(ctx, p)
		}
	}
}

// catchUp brings the new index to the live one's checkpoint if a failed comparison, which was
// accepted, did not: up to there the live one is consulted.
func (r *Rebuild) catchUp(ctx context.Context, p *replay.Replay) error {
	live, _, err := r.owner.CheckpointOf(ctx, store.Live)
	for more := true; err == nil && more && p.At() < live.Seq; {
		if err = p.Sweep(ctx); err == nil {
			more, err = p.Next(ctx, live.Seq)
		}
	}
	return err
}

// recallFloors copies the live index's floors if the comparison did not get that far, which was
// accepted. A live index that cannot be read must not prevent the rebuild then.
func (r *Rebuild) recallFloors(ctx context.Context, p *replay.Replay) error {
	err := p.RecallFloors(ctx)
	if err == nil || errors.Is(err, write.ErrLeaseLost) || !r.AcceptDifferences {
		return err
	}
	r.Logger.Warn("the live index's floors could not be copied, which was accepted", "err", err)
	return nil
}

// list makes the lists of the new index, if they were postponed.
func (r *Rebuild) list(ctx context.Context, p *replay.Replay, w *write.Writer) error {
	if !w.Unlisted() {
		return nil
	}
	r.Progress.Say("making the new index's lists")
	return p.List(ctx)
}

func (r *Rebuild) vacuum(ctx context.Context, w *write.Writer) error {
	r.Progress.Say("vacuuming the new index")
	return w.Keep(ctx, func(ctx context.Context) error { return r.owner.Vacuum(ctx, store.Rebuilding) })
}

// switched returns the error of a switch. The commit's answer may be lost: the schema's name tells.
func (r *Rebuild) switched(ctx context.Context, err error) error {
	if err != nil {
		if _, exists, lookErr := r.owner.CheckpointOf(ctx, store.Rebuilding); lookErr != nil || exists {
			return err
		}
	}
	if loss := r.owner.FeedLoss(); loss != "" {
		r.Logger.Warn("the change feed of the former index was not kept: all followers list everything again", "reason", loss)
	}
	return nil
}
