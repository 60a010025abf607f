package dlq

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
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

// nearEnd is how many messages may be left to read under the lease.
const nearEnd = 2000

// Selection selects dead letters: those with these numbers or, without any, all; and those with
// this reason, if one is given.
type Selection struct {
	Seqs   []uint64
	Reason string
}

// Result is the outcome for one dead letter.
type Result struct {
	Seq uint64
	// Err says why it stays, nil if it was applied and removed. A letter whose message was erased
	// from the stream is removed, too: there is nothing to apply.
	Err error
}

// Redrive is one run of a redrive.
type Redrive struct {
	JS       jetstream.JetStream
	Writer   *write.Writer // without a lease
	Logger   *slog.Logger
	Progress obs.Progress
	// OnResult is called once for each dead letter.
	OnResult func(Result)
	// MaxHistory bounds the messages held in memory, in bytes; 0 means a bound that suits most
	// machines.
	MaxHistory int

	// unselected are the dead letters that must stay.
	unselected map[uint64]bool
	// settled are the results of a pass, reported after the lease is given back.
	settled []Result
}

// Run redrives the selection. What cannot be applied stays, with the new reason; the error is that
// of a server, or write.ErrLeaseLost if another command seized the lease. Then some letters may be
// done, and it is safe to run it again.
func (r *Redrive) Run(ctx context.Context, sel Selection) error {
	accounts, err := r.accounts(ctx, sel)
	if err != nil {
		return err
	}
	if len(accounts) > 0 {
		if err := r.pass(ctx, accounts); err != nil {
			return err
		}
	}
	// A crash before here leaves a total that is too high, until the next time.
	return Recount(ctx, r.JS, r.Writer)
}

// Recount sets the index's total of dead letters to the number of letters for messages before the
// checkpoint.
func Recount(ctx context.Context, js jetstream.JetStream, w *write.Writer) error {
	return w.RecountDeadLetters(ctx, func(ctx context.Context, checkpoint uint64) (int64, error) {
		seqs, err := stream.DeadLetterSeqs(ctx, js)
		return int64(len(slices.DeleteFunc(seqs, func(seq uint64) bool { return seq > checkpoint }))), err
	})
}

// accounts examines the selected dead letters, and returns those that need work, by account.
func (r *Redrive) accounts(ctx context.Context, sel Selection) ([]*account, error) {
	all, err := stream.DeadLetterSeqs(ctx, r.JS)
	if err != nil {
		return nil, err
	}
	r.unselected = make(map[uint64]bool, len(all))
	for _, seq := range all {
		r.unselected[seq] = true
	}
	seqs := sel.Seqs
	if len(seqs) == 0 {
		seqs = all
	}
	byDID := map[string]*account{}
	seqs = slices.Clone(seqs)
	slices.Sort(seqs)
	for _, seq := range slices.Compact(seqs) {
		d, err := stream.GetDeadLetter(ctx, r.JS, seq)
		if errors.Is(err, stream.ErrNoDeadLetter) {
			if len(sel.Seqs) > 0 {
				r.OnResult(Result{seq, err})
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if sel.Reason != "" && sel.Reason != d.Reason {
			continue
		}
		did, done, err := r.examine(ctx, d)
		switch {
		case err != nil:
			return nil, err
		case done:
			continue
		}
		if byDID[did] == nil {
			byDID[did] = &account{did: did}
		}
		byDID[did].letters = append(byDID[did].letters, seq)
		delete(r.unselected, seq)
	}
	accounts := make([]*account, 0, len(byDID))
	for _, a := range byDID {
		accounts = append(accounts, a)
	}
	slices.SortFunc(accounts, func(a, b *account) int { return cmp.Compare(a.did, b.did) })
	return accounts, nil
}

// examine finds the account of a dead letter. It settles a letter that cannot be applied, or has no
// effect.
func (r *Redrive) examine(ctx context.Context, d stream.DeadLetter) (did string, done bool, err error) {
	msg, err := stream.GetMessage(ctx, r.JS, d.Seq)
	if err != nil {
		return "", false, err
	}
	if msg == nil {
		st, err := stream.GetState(ctx, r.JS)
		switch {
		case err != nil:
			return "", false, err
		case d.Seq < st.First:
			return "", true, r.stays(ctx, d, ErrTrimmed)
		case d.Seq > st.Last:
			return "", true, r.stays(ctx, d, ErrForeign)
		}
		return "", true, r.done(ctx, d.Seq) // erased
	}
	if foreign(d, msg.Data) {
		return "", true, r.stays(ctx, d, ErrForeign)
	}
	ev, err := event.Decode(msg.Data)
	switch {
	case err != nil:
		return "", true, r.stays(ctx, d, err)
	case ev.Kind == event.KindPosition:
		return "", true, r.done(ctx, d.Seq) // the checkpoint is past it
	}
	return ev.DID, false, nil
}

// done removes a dead letter, after the commit: a crash in between leaves it, and it is redriven
// again.
func (r *Redrive) done(ctx context.Context, seq uint64) error {
	if err := stream.DeleteDeadLetter(ctx, r.JS, seq); err != nil {
		return err
	}
	r.OnResult(Result{Seq: seq})
	return nil
}

// stays reports why a dead letter stays, and stores the reason in the letter if it has changed.
func (r *Redrive) stays(ctx context.Context, d stream.DeadLetter, why error) error {
	reason, applied := apply.ReasonOf(why)
	if applied && (d.Reason != string(reason) || d.Error != why.Error()) {
		d.Reason, d.Error, d.At = string(reason), why.Error(), time.Now().UTC()
		if err := stream.PutDeadLetter(ctx, r.JS, d); err != nil {
			return err
		}
	}
	r.OnResult(Result{d.Seq, why})
	return nil
}

// pass redrives accounts: in one pass over the stream, or in several if their histories are too big
// to hold at once.
func (r *Redrive) pass(ctx context.Context, accounts []*account) error {
	err := r.once(ctx, accounts)
	if !errors.Is(err, errTooBig) {
		return err
	}
	if n := len(accounts); n > 1 {
		if err := r.pass(ctx, accounts[:n/2]); err != nil {
			return err
		}
		return r.pass(ctx, accounts[n/2:])
	}
	for _, seq := range accounts[0].letters {
		r.OnResult(Result{seq, ErrTooBig})
	}
	return nil
}

func (r *Redrive) once(ctx context.Context, accounts []*account) error {
	st, err := stream.GetState(ctx, r.JS)
	if err != nil {
		return err
	}
	from, whole := st.First, st.First == 1
	if !whole {
		from = accounts[0].letters[0]
		for _, a := range accounts {
			from = min(from, a.letters[0])
		}
	}
	h := newHistories(accounts, from, cmp.Or(r.MaxHistory, maxHistory), func(m stream.Message) (bool, error) { return r.staysDead(ctx, m) })
	for {
		cp, err := r.checkpoint(ctx, st)
		if err != nil {
			return err
		}
		if h.at+nearEnd >= cp.Seq {
			break
		}
		if err := h.read(ctx, r.JS, cp.Seq, func() { r.Progress.At(h.at, cp.Seq) }); err != nil {
			return err
		}
	}
	r.Progress.Say("writing")
	r.settled = nil
	err = r.write(ctx, h, accounts, whole)
	// What was committed stays done, whatever fails later.
	for _, res := range r.settled {
		if err := r.settle(ctx, res); err != nil {
			return err
		}
	}
	return err
}

// staysDead reports whether a message of one of the accounts is a dead letter that was not
// selected. A letter of a former stream does not count.
func (r *Redrive) staysDead(ctx context.Context, m stream.Message) (bool, error) {
	if !r.unselected[m.Seq] {
		return false, nil
	}
	d, err := stream.GetDeadLetter(ctx, r.JS, m.Seq)
	if errors.Is(err, stream.ErrNoDeadLetter) {
		return false, nil // another redrive was faster
	}
	return err == nil && !foreign(d, m.Data), err
}

// foreign reports whether the stream has another message at the dead letter's number. A letter that
// was too big to copy is not compared.
func foreign(d stream.DeadLetter, data []byte) bool {
	return len(d.Payload) > 0 && !bytes.Equal(d.Payload, data)
}

// write seizes the lease, reads the last few messages, and folds the accounts' histories.
func (r *Redrive) write(ctx context.Context, h *histories, accounts []*account, whole bool) error {
	return r.Writer.Lead(ctx, r.Writer.Seize, func(cp store.Checkpoint) error {
		if err := r.Writer.Keep(ctx, func(ctx context.Context) error {
			return h.read(ctx, r.JS, cp.Seq, nil)
		}); err != nil {
			return err
		}
		for r.Writer.Sweeping() {
			if err := r.applier().Sweep(ctx); err != nil {
				return err
			}
		}
		for _, a := range accounts {
			if err := r.apply(ctx, a, cp.Seq, whole); err != nil {
				return err
			}
			a.steps = nil
		}
		return nil
	})
}

// checkpoint reads the checkpoint, and checks that it belongs to this stream.
func (r *Redrive) checkpoint(ctx context.Context, st stream.State) (store.Checkpoint, error) {
	cp, err := r.Writer.Checkpoint(ctx)
	if err != nil {
		return cp, err
	}
	if cp.Seq > st.Last {
		if st, err = stream.GetState(ctx, r.JS); err != nil {
			return cp, err
		}
	}
	return cp, stream.CheckIndex(ctx, r.JS, st, cp.Seq, cp.Source)
}

// apply redrives the dead letters of one account, together or, if Postgres refuses that, one after
// the other.
func (r *Redrive) apply(ctx context.Context, a *account, through uint64, whole bool) error {
	var letters []uint64
	for _, seq := range a.letters {
		if seq > through {
			r.settled = append(r.settled, Result{seq, ErrAhead})
			continue
		}
		letters = append(letters, seq)
	}
	if len(letters) == 0 {
		return nil
	}
	out := map[uint64]bool{} // those of a.letters that are left out
	fold := func() error {
		h := apply.History{DID: a.did, Through: through, Whole: whole}
		for _, step := range a.steps {
			// In a partial history, events before the account's own letters add nothing.
			if !out[step.Seq] && (whole || step.Seq >= letters[0]) {
				h.Steps = append(h.Steps, step)
			}
		}
		return r.applier().Redrive(ctx, h)
	}
	err := fold()
	if err == nil {
		for _, seq := range letters {
			r.settled = append(r.settled, Result{Seq: seq})
		}
		return nil
	}
	if !write.Rejected(err) {
		return err
	}
	for _, seq := range letters {
		out[seq] = true
	}
	for _, seq := range letters {
		delete(out, seq)
		err := fold()
		switch {
		case write.Rejected(err):
			out[seq] = true
		case err != nil:
			return err
		}
		r.settled = append(r.settled, Result{seq, err})
	}
	return nil
}

func (r *Redrive) applier() *apply.Applier { return &apply.Applier{Writer: r.Writer, Logger: r.Logger} }

// settle applies the outcome for a dead letter.
func (r *Redrive) settle(ctx context.Context, res Result) error {
	if res.Err == nil {
		return r.done(ctx, res.Seq)
	}
	d, err := stream.GetDeadLetter(ctx, r.JS, res.Seq)
	if err != nil {
		return err
	}
	return r.stays(ctx, d, res.Err)
}
