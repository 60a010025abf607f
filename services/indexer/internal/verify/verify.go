// Package verify compares the live index with another one of the same stream: a rebuilt or a
// retired one. It first brings an index that is behind to the live checkpoint, through the code
// that indexes live, and again before each slice of the comparison. Each slice sees one unchanging
// state of both indexes while everything else continues.
package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/replay"
)

// nearEnd is how many messages may be applied while the live index waits.
const nearEnd = 1000

// Verify is one run of a verification.
type Verify struct {
	// Stream connects to the stream; it is called only if the other index is behind.
	Stream   func(ctx context.Context) (jetstream.JetStream, error)
	Database store.Options
	ID       string // unique to the run
	Logger   *slog.Logger
	Progress obs.Progress
}

// Other returns the schema to compare with the live one, "" if there is none.
func (v *Verify) Other(ctx context.Context) (string, error) {
	for _, schema := range []string{store.Rebuilding, store.Retired} {
		_, exists, err := write.NewOwner(v.Database).CheckpointOf(ctx, schema)
		if err != nil {
			return "", err
		}
		if exists {
			return schema, nil
		}
	}
	return "", nil
}

// Check checks one schema alone.
func (v *Verify) Check(ctx context.Context, schema string) (check.Findings, error) {
	return v.verifier().Check(ctx, schema)
}

func (v *Verify) verifier() *check.Verifier {
	c := check.New(v.Database)
	c.Progress = v.Progress.At
	return c
}

// Compare compares two schemas, and brings other to schema's checkpoint if it is behind. It never
// moves the live one.
func (v *Verify) Compare(ctx context.Context, schema, other string) (check.Findings, error) {
	at, err := v.checkpoint(ctx, schema)
	if err != nil {
		return check.Findings{}, err
	}
	cp, err := v.checkpoint(ctx, other)
	switch {
	case err != nil:
		return check.Findings{}, err
	case cp.Seq == at.Seq:
		// Without a writer it does not change.
		f, err := v.verifier().Compare(ctx, schema, other, nil)
		unfinished := errors.Is(err, check.ErrNotAligned) || errors.Is(err, check.ErrSweeping) || errors.Is(err, check.ErrUnlisted)
		switch {
		case other == store.Live, err != nil && !unfinished, err == nil && f.N == 0:
			return f, err
		case err == nil:
			// Possibly only the last messages before the checkpoint are missing.
			aligned, err := v.alignAndCompare(ctx, schema, other)
			if err == nil {
				return aligned, nil
			}
			v.Logger.Warn("the differences may only mean that this index could not be brought up to date: "+other, "err", err)
			return f, nil
		}
	case cp.Seq > at.Seq || other == store.Live:
		return check.Findings{}, fmt.Errorf("%w: %s is at %d, %s at %d; let the one behind catch up, or name it as the other",
			check.ErrNotAligned, schema, at.Seq, other, cp.Seq)
	}
	return v.alignAndCompare(ctx, schema, other)
}

func (v *Verify) checkpoint(ctx context.Context, schema string) (store.Checkpoint, error) {
	cp, exists, err := write.NewOwner(v.Database).CheckpointOf(ctx, schema)
	if err == nil && !exists {
		err = fmt.Errorf("there is no index in schema %s", schema)
	}
	return cp, err
}

// alignAndCompare brings the other schema near the first one's checkpoint, and the rest of the way
// while the comparison holds that checkpoint.
func (v *Verify) alignAndCompare(ctx context.Context, schema, other string) (check.Findings, error) {
	js, err := v.Stream(ctx)
	if err != nil {
		return check.Findings{}, err
	}
	o := v.Database
	o.Schema = other
	migrated, err := store.IsMigrated(ctx, o)
	if err != nil {
		return check.Findings{}, err
	}
	if !migrated {
		return check.Findings{}, fmt.Errorf("%s is of an older program version and cannot be brought to the same message: run the rebuild again, or verify --alone", other)
	}
	w, err := write.Open(ctx, o, v.ID)
	if err != nil {
		return check.Findings{}, err
	}
	defer w.Close()
	cp, err := w.Acquire(ctx)
	if errors.Is(err, write.ErrLeaseHeld) {
		return check.Findings{}, fmt.Errorf("%s is being written by another program, such as a rebuild: %w", other, err)
	}
	if err != nil {
		return check.Findings{}, err
	}
	release := func() { _ = w.Release(ctx) } // otherwise it expires
	defer release()
	r, err := replay.Open(ctx, replay.Config{
		JS: js, Writer: w, Logger: v.Logger, Database: v.Database, Reference: schema,
		// They were stored when the live index passed them.
		PutDeadLetter: func(context.Context, stream.DeadLetter) error { return nil },
	}, cp.Seq)
	if err != nil {
		return check.Findings{}, err
	}
	defer r.Close()
	if err := r.List(ctx); err != nil {
		return check.Findings{}, err
	}
	v.Progress.Say("bringing " + other + " to the same message")
	for {
		at, err := v.checkpoint(ctx, schema)
		if err != nil {
			return check.Findings{}, err
		}
		if r.At()+nearEnd >= at.Seq {
			break
		}
		more, err := r.FoldBatch(ctx, at.Seq)
		if err != nil {
			return check.Findings{}, err
		}
		if !more {
			break
		}
		v.Progress.At(r.At(), at.Seq)
	}
	v.Progress.Say("comparing")
	c := v.verifier()
	c.Near = func(ctx context.Context, seq uint64) error {
		// It was given back after the previous slice.
		if _, err := w.Acquire(ctx); err != nil {
			return err
		}
		return r.FoldAvailable(ctx, seq)
	}
	return c.Compare(ctx, schema, other, func(ctx context.Context, seq uint64) error {
		defer release()
		if err := r.FoldTo(ctx, seq); err != nil {
			return err
		}
		if err := r.FinishPending(ctx); err != nil {
			return err
		}
		return r.RecallFloors(ctx)
	})
}
