// Package verify compares the live index with another one of the same stream:
// what a rebuild has made, or what a switch has retired. An index that is
// behind is brought to the live one's checkpoint first, through the code that
// indexes live; the comparison itself is of one unchanging state of both, while
// everything goes on.
package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

const (
	batchSize = 1000
	batchWait = 20 * time.Millisecond
	idleWait  = 200 * time.Millisecond
	// nearEnd is how many messages may be applied while the live index waits.
	nearEnd        = 1000
	releaseTimeout = 3 * time.Second
	// sweepPatience is how long to wait for the end of the live index's sweeps.
	sweepPatience = time.Minute
	sweepPause    = 200 * time.Millisecond
)

// Progress is told how far the work is.
type Progress interface {
	At(done, total uint64)
	Say(step string)
}

// Verify is one run of a verification.
type Verify struct {
	// Stream connects to the stream; it is asked for only where the other index
	// is behind.
	Stream   func(ctx context.Context) (jetstream.JetStream, error)
	Database store.Options
	ID       string // unique to the run
	Logger   *slog.Logger
	Progress Progress
}

// Other returns the schema beside the live one that there is to compare it
// with, "" where there is none.
func (v *Verify) Other(ctx context.Context) (string, error) {
	for _, schema := range []string{store.Rebuilding, store.Retired} {
		_, exists, err := store.NewOwner(v.Database).CheckpointOf(ctx, schema)
		if err != nil {
			return "", err
		}
		if exists {
			return schema, nil
		}
	}
	return "", nil
}

// Check checks one schema by itself.
func (v *Verify) Check(ctx context.Context, schema string) (store.Findings, error) {
	return unswept(ctx, func() (store.Findings, error) { return v.verifier().Check(ctx, schema) })
}

// unswept tries again while the indexer sweeps an account.
func unswept(ctx context.Context, verify func() (store.Findings, error)) (store.Findings, error) {
	for deadline := time.Now().Add(sweepPatience); ; {
		f, err := verify()
		if !errors.Is(err, store.ErrSweeping) || time.Now().After(deadline) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return f, context.Cause(ctx)
		case <-time.After(sweepPause):
		}
	}
}

func (v *Verify) verifier() *store.Verifier {
	s := store.NewVerifier(v.Database)
	s.Progress = v.Progress.At
	return s
}

// Compare compares two schemas, and brings other to schema's checkpoint where
// it is behind. The live one is never brought anywhere.
func (v *Verify) Compare(ctx context.Context, schema, other string) (store.Findings, error) {
	at, err := v.checkpoint(ctx, schema)
	if err != nil {
		return store.Findings{}, err
	}
	cp, err := v.checkpoint(ctx, other)
	switch {
	case err != nil:
		return store.Findings{}, err
	case cp.Seq == at.Seq:
		// If nobody writes, it stays so.
		f, err := v.verifier().Compare(ctx, schema, other, nil)
		if !errors.Is(err, store.ErrApart) && !errors.Is(err, store.ErrSweeping) || other == store.Live {
			return f, err
		}
	case cp.Seq > at.Seq || other == store.Live:
		return store.Findings{}, fmt.Errorf("%w: %s is at %d, %s at %d; let the one behind catch up, or name it as the other",
			store.ErrApart, schema, at.Seq, other, cp.Seq)
	}
	return v.align(ctx, schema, other)
}

func (v *Verify) checkpoint(ctx context.Context, schema string) (store.Checkpoint, error) {
	cp, exists, err := store.NewOwner(v.Database).CheckpointOf(ctx, schema)
	if err == nil && !exists {
		err = fmt.Errorf("there is no index in schema %s", schema)
	}
	return cp, err
}

// align brings the other schema near the first one's checkpoint, and the rest
// of the way while the comparison holds that.
func (v *Verify) align(ctx context.Context, schema, other string) (store.Findings, error) {
	js, err := v.Stream(ctx)
	if err != nil {
		return store.Findings{}, err
	}
	o := v.Database
	o.Schema = other
	w, err := store.OpenWriter(ctx, o, v.ID)
	if err != nil {
		return store.Findings{}, err
	}
	defer w.Close()
	cp, err := w.Acquire(ctx)
	if errors.Is(err, store.ErrLeaseHeld) {
		return store.Findings{}, fmt.Errorf("%s is being written by another program, such as a rebuild: %w", other, err)
	}
	if err != nil {
		return store.Findings{}, err
	}
	release := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		_ = w.Release(ctx) // else it ends by itself
	}
	defer release()
	r, err := stream.OpenReader(ctx, js, cp.Seq+1)
	if err != nil {
		return store.Findings{}, err
	}
	defer r.Close()
	c := catchUp{reader: r, writer: w, at: cp.Seq, applier: &apply.Applier{
		Writer: w, Logger: v.Logger,
		// They are there since they were passed live.
		PutDeadLetter: func(context.Context, stream.DeadLetter) error { return nil },
	}}
	v.Progress.Say("bringing " + other + " to the same message")
	for {
		at, err := v.checkpoint(ctx, schema)
		if err != nil {
			return store.Findings{}, err
		}
		if c.at+nearEnd >= at.Seq {
			break
		}
		if err := c.to(ctx, at.Seq, v.Progress); err != nil {
			return store.Findings{}, err
		}
	}
	v.Progress.Say("comparing")
	return unswept(ctx, func() (store.Findings, error) {
		// Between two tries the lease may have ended.
		if _, err := w.Acquire(ctx); err != nil {
			return store.Findings{}, err
		}
		return v.verifier().Compare(ctx, schema, other, func(ctx context.Context, seq uint64) error {
			defer release()
			return c.to(ctx, seq, nil)
		})
	})
}

// catchUp applies the stream to an index.
type catchUp struct {
	reader  *stream.Reader
	writer  *store.Writer
	applier *apply.Applier
	at      uint64
	ahead   []stream.Message
}

// to applies everything up to number seq, and nothing behind it.
func (c *catchUp) to(ctx context.Context, seq uint64, p Progress) error {
	for c.at < seq {
		if len(c.ahead) == 0 {
			wait, cancel := context.WithTimeout(ctx, idleWait)
			batch, err := c.reader.Next(wait, batchSize, batchWait)
			cancel()
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case err != nil && !errors.Is(err, context.DeadlineExceeded):
				return err
			case len(batch) == 0:
				if err := c.writer.Renew(ctx); err != nil {
					return err
				}
				continue
			}
			c.ahead = batch
		}
		n := len(c.ahead)
		for n > 0 && c.ahead[n-1].Seq > seq {
			n--
		}
		if n == 0 {
			// What was between was erased: there is nothing to apply.
			return fmt.Errorf("%w: message %d was erased meanwhile, try again", store.ErrApart, seq)
		}
		if err := c.applier.Apply(ctx, c.ahead[:n]); err != nil {
			return err
		}
		c.at, c.ahead = c.ahead[n-1].Seq, c.ahead[n:]
		if p != nil {
			p.At(c.at, seq)
		}
	}
	for c.writer.Sweeping() {
		if err := c.applier.Sweep(ctx); err != nil {
			return err
		}
	}
	return nil
}
