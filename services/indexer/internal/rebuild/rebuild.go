// Package rebuild makes a new index from the stream, beside the live one, and puts it in its place:
//
//  1. fold the stream into a second schema, through the code that indexes live;
//  2. catch up with the live index's checkpoint, make the lists, and compare the two indexes there;
//  3. catch up with the stream's end, and switch in a single transaction;
//  4. drop the former index.
//
// During all of this the live index is read and written as usual.
//
// A rebuild can be interrupted at any point and started again: the new schema has its own
// checkpoint. A crash during the switch leaves it done or not done.
//
// If the stream was trimmed, the new index starts with what the live one has of the trimmed time.
// If the live index is of another stream, for example after a restore, the new one is switched in
// once it is as recent in upstream time; the two are only searched for conflicts.
package rebuild

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	// nearEnd is how many messages may be missing when the new schema is vacuumed, beside a live
	// index of another stream.
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

	owner  *write.Owner
	writer *write.Writer // of the new index
	replay *replay.Replay
	plan   plan
	// recalled reports that the live index's floors were copied.
	recalled bool
	// same reports that this run found no difference from the live index.
	same bool
	// waiting reports that the operator was told what asRecent waits for.
	waiting bool
}

// Run rebuilds and switches. It returns the number of messages replayed.
func (r *Rebuild) Run(ctx context.Context) (uint64, error) {
	r.owner = write.NewOwner(r.Database)
	// Remains of a switch that was killed before its clean-up.
	if err := r.owner.Drop(ctx, store.Retired); err != nil {
		return 0, err
	}
	if r.Restart {
		if err := r.dropRemains(ctx); err != nil {
			return 0, fmt.Errorf("rebuild: %w", err)
		}
	}
	if err := r.makePlan(ctx); err != nil {
		return 0, fmt.Errorf("rebuild: %w", err)
	}
	o := r.Database
	o.Schema = store.Rebuilding
	if err := store.Migrate(ctx, o, r.Logger); err != nil {
		return 0, err
	}
	var err error
	if r.writer, err = write.Open(ctx, o, r.ID); err != nil {
		return 0, err
	}
	defer r.writer.Close()
	var replayed uint64
	err = r.writer.Lead(ctx, r.writer.Acquire, func(cp store.Checkpoint) (err error) {
		replayed, err = r.fillAndSwitch(ctx, cp.Seq)
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

// fillAndSwitch fills the new index, whose checkpoint is at message from, and switches it in. It
// returns how many messages it replayed.
func (r *Rebuild) fillAndSwitch(ctx context.Context, from uint64) (uint64, error) {
	if from > 0 {
		r.Progress.Say(fmt.Sprintf("continuing an interrupted rebuild from message %d", from))
	} else {
		if err := r.begin(ctx); err != nil {
			return 0, err
		}
		from = r.plan.first - 1
	}
	if !r.writer.Listing() { // otherwise the interrupted run did it
		if err := r.copySettings(ctx); err != nil {
			return 0, err
		}
	}
	var err error
	r.replay, err = replay.Open(ctx, replay.Config{
		JS: r.JS, Writer: r.writer, Logger: r.Logger, Database: r.Database, Reference: store.Live,
		// Store even those that became dead letters when they were applied live: a program that
		// could apply one may have redriven and removed it.
		PutDeadLetter: func(ctx context.Context, d stream.DeadLetter) error { return stream.PutDeadLetter(ctx, r.JS, d) },
	}, from)
	if err != nil {
		return 0, err
	}
	defer r.replay.Close()
	if r.writer.Listing() || r.plan.foreign {
		if err := r.makeLists(ctx); err != nil {
			return 0, err
		}
	}
	if r.plan.foreign {
		err = r.replaceOtherStream(ctx)
	} else {
		err = r.replaceSameStream(ctx)
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("rebuild interrupted at message %d; run it again to continue: %w", r.replay.At(), context.Cause(ctx))
	}
	return r.replay.At() - from, err
}

// begin prepares the empty index for what the plan says.
func (r *Rebuild) begin(ctx context.Context) error {
	if !r.plan.foreign {
		if err := r.writer.ListLater(ctx); err != nil {
			return err
		}
	}
	if r.plan.carry {
		return r.carryOver(ctx)
	}
	return nil
}

// copySettings makes the new index hide what the live one hides by its settings: accounts that have
// opted out, and those that the operator denies.
func (r *Rebuild) copySettings(ctx context.Context) error {
	showOptedOut, err := r.writer.LiveShowsOptedOut(ctx)
	if err != nil {
		return err
	}
	var deny apply.Deny
	if deny.Accounts, deny.Tags, err = r.writer.LiveDenied(ctx); err != nil {
		return err
	}
	return (&apply.Applier{Writer: r.writer, Logger: r.Logger}).Consent(ctx, showOptedOut, deny)
}

// replaceSameStream replaces a live index of the same stream: it folds up to the live checkpoint,
// compares the two indexes there, folds up to the stream's end, and switches.
func (r *Rebuild) replaceSameStream(ctx context.Context) error {
	if err := r.foldAndCompare(ctx); err != nil {
		return err
	}
	r.replay.StopRecalling()
	for {
		if err := r.foldUntil(ctx, r.caughtUp); err != nil {
			return err
		}
		err := r.owner.Switch(ctx, r.same, r.meetLive)
		if !errors.Is(err, errSettings) {
			return r.switched(ctx, err)
		}
	}
}

// foldAndCompare folds up to the live index's checkpoint, makes the lists, and compares the two
// indexes. If the live index is idle, this is the only comparison.
func (r *Rebuild) foldAndCompare(ctx context.Context) error {
	if _, err := r.foldNearLive(ctx); err != nil {
		return err
	}
	if err := r.makeLists(ctx); err != nil {
		return err
	}
	if err := r.vacuum(ctx); err != nil {
		return err
	}
	for {
		live, err := r.foldNearLive(ctx)
		if err != nil {
			return err
		}
		if live == 0 || r.replay.At() > live {
			return nil // nothing to compare, or it was done before the interruption
		}
		if !r.writer.Pending() {
			break
		}
		// Here, not while the live index waits.
		if err := r.replay.FinishPending(ctx); err != nil {
			return err
		}
	}
	if err := r.compare(ctx); err != nil {
		return err
	}
	return r.foldToLive(ctx)
}

// errSettings says that the live index's settings have changed since the comparison.
var errSettings = errors.New("accounts must be hidden or shown first")

// meetLive brings the new index to the message at which the live one waits for the switch.
func (r *Rebuild) meetLive(ctx context.Context, seq uint64) error {
	if err := r.replay.FoldTo(ctx, seq); err != nil {
		return err
	}
	if !r.recalled {
		if err := r.recallFloors(ctx); err != nil {
			return err
		}
	}
	pending := r.writer.Pending()
	if err := r.copySettings(ctx); err != nil {
		return err
	}
	if r.writer.Pending() && !pending {
		return errSettings
	}
	return nil
}

// recallFloors copies the live index's floors if the comparison did not get that far, which was
// accepted. A live index that cannot be read must not prevent the rebuild then.
func (r *Rebuild) recallFloors(ctx context.Context) error {
	err := r.replay.RecallFloors(ctx)
	if err == nil || errors.Is(err, write.ErrLeaseLost) || !r.AcceptDifferences {
		return err
	}
	r.Logger.Warn("the live index's floors could not be copied, which was accepted", "err", err)
	return nil
}

// replaceOtherStream replaces a live index of another stream: it folds the stream until the new
// index is as recent, looks for what it lacks, and switches.
func (r *Rebuild) replaceOtherStream(ctx context.Context) error {
	r.replay.StopRecalling()
	if err := r.foldUntil(ctx, func(_ context.Context, missing uint64) (bool, error) { return missing <= nearEnd, nil }); err != nil {
		return err
	}
	if err := r.vacuum(ctx); err != nil {
		return err
	}
	if err := r.foldUntil(ctx, r.asRecent); err != nil {
		return err
	}
	if err := r.checkConflicts(ctx); err != nil {
		return err
	}
	if err := r.copySettings(ctx); err != nil {
		return err
	}
	if err := r.foldUntil(ctx, r.asRecent); err != nil {
		return err
	}
	return r.switched(ctx, r.owner.SwitchStream(ctx))
}

// makeLists makes the lists of the new index, if they were postponed.
func (r *Rebuild) makeLists(ctx context.Context) error {
	if !r.writer.Unlisted() {
		return nil
	}
	r.Progress.Say("making the new index's lists")
	return r.replay.List(ctx)
}

func (r *Rebuild) vacuum(ctx context.Context) error {
	r.Progress.Say("vacuuming the new index")
	return r.writer.Keep(ctx, func(ctx context.Context) error { return r.owner.Vacuum(ctx, store.Rebuilding) })
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
