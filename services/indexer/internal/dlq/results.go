package dlq

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// Why a dead letter stays, other than errors of decoding or of Postgres.
var (
	// ErrTrimmed: the stream was trimmed past the message.
	ErrTrimmed = errors.New("the stream no longer has the message and everything after it, so nothing shows whether it still applies")
	// ErrForeign: the stream has another message at that number.
	ErrForeign = errors.New("the stream has another message at that number: the dead letter is of a former stream")
	// ErrAhead: the indexer has not passed the message.
	ErrAhead = errors.New("the indexer has not reached the message yet")
	// ErrTooBig: see maxHistory.
	ErrTooBig = errors.New("the account's history is too big to be folded at once; rebuild the index instead")
)

// Result is the outcome for one dead letter.
type Result struct {
	Seq uint64
	// Err says why it stays, nil if it was applied and removed. A letter whose message was erased
	// from the stream is removed, too: there is nothing to apply.
	Err error
}

// report stores and reports the outcome for a dead letter.
func (r *Redrive) report(ctx context.Context, res Result) error {
	if res.Err == nil {
		return r.remove(ctx, res.Seq)
	}
	d, err := stream.GetDeadLetter(ctx, r.JS, res.Seq)
	if err != nil {
		return err
	}
	return r.keep(ctx, d, res.Err)
}

// remove removes a dead letter, after the commit: a crash in between leaves it, and it is redriven
// again.
func (r *Redrive) remove(ctx context.Context, seq uint64) error {
	if err := stream.DeleteDeadLetter(ctx, r.JS, seq); err != nil {
		return err
	}
	r.OnResult(Result{Seq: seq})
	return nil
}

// keep reports why a dead letter stays, and stores the reason in the letter if it has changed.
func (r *Redrive) keep(ctx context.Context, d stream.DeadLetter, why error) error {
	reason, ok := apply.ReasonOf(why)
	if ok && (d.Reason != string(reason) || d.Error != why.Error()) {
		d.Reason, d.Error, d.At = string(reason), why.Error(), time.Now().UTC()
		if err := stream.PutDeadLetter(ctx, r.JS, d); err != nil {
			return err
		}
	}
	r.OnResult(Result{d.Seq, why})
	return nil
}

// Recount sets the index's total of dead letters to the number of letters for messages before the
// checkpoint.
func Recount(ctx context.Context, js jetstream.JetStream, w *write.Writer) error {
	return w.RecountDeadLetters(ctx, func(ctx context.Context, checkpoint uint64) (int64, error) {
		seqs, err := stream.DeadLetterSeqs(ctx, js)
		return int64(len(slices.DeleteFunc(seqs, func(seq uint64) bool { return seq > checkpoint }))), err
	})
}
