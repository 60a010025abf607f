package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// rangeBatch and rangeWait bound one batch of a Range, in messages and in waiting for more.
	rangeBatch = MaxBatch
	rangeWait  = 20 * time.Millisecond
	// rangeIdle is how long to wait without a message before the server is asked whether there are
	// any more.
	rangeIdle = 500 * time.Millisecond
	// rangePatience is how long to wait without a message although there are more, or the server is
	// away.
	rangePatience = 30 * time.Second
)

// Range reads the messages from number from (1 or more) to number to, in order and in batches. It
// ends after the last of them that the stream still has, since some may have been erased. An error
// comes last: one of OpenReader or Next, ctx's, or that no message arrived for too long.
func Range(ctx context.Context, js jetstream.JetStream, from, to uint64) iter.Seq2[[]Message, error] {
	return func(yield func([]Message, error) bool) {
		if from > to {
			return
		}
		r, err := OpenReader(ctx, js, from)
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.Close()
		for next, heard := from, time.Now(); next <= to; heard = time.Now() {
			batch, err := r.rest(ctx, next, to, heard)
			if err != nil {
				yield(nil, err)
				return
			}
			n := len(batch)
			for n > 0 && batch[n-1].Seq > to {
				n--
			}
			if n == 0 || !yield(batch[:n], nil) || n < len(batch) {
				return
			}
			next = batch[n-1].Seq + 1
		}
	}
}

// rest returns the next messages of a Range, or none if there are no more up to number to. heard is
// the time of the last sign of the server.
func (r *Reader) rest(ctx context.Context, next, to uint64, heard time.Time) ([]Message, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, rangeIdle)
		batch, err := r.Next(wait, rangeBatch, rangeWait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err == nil:
			return batch, nil
		case !errors.Is(err, context.DeadlineExceeded):
			return nil, err
		}
		more, err := HasMessage(ctx, r.js, next, to)
		if err == nil && !more {
			return nil, nil
		}
		if time.Since(heard) >= rangePatience {
			return nil, fmt.Errorf("read %s from %d to %d: nothing came for %s: %w", Posts, next, to, rangePatience,
				errors.Join(err, r.Trouble(), wait.Err()))
		}
	}
}
