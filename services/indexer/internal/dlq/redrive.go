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

// Why a dead letter stays, beside what decoding or Postgres says of it.
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

// Selection says which dead letters to redrive: those with these numbers, or,
// without any, all; those with this reason where one is given.
type Selection struct {
	Seqs   []uint64
	Reason string
}

// Result is what became of one dead letter.
type Result struct {
	Seq uint64
	// Err is why it stays, nil where it was applied and removed. One whose
	// message was erased from the stream is removed, too: nothing is to be applied.
	Err error
}

// Redrive is one run of a redrive.
type Redrive struct {
	JS       jetstream.JetStream
	Writer   *write.Writer // without a lease
	Logger   *slog.Logger
	Progress obs.Progress
	// OnResult hears of each dead letter, once.
	OnResult func(Result)
	// MaxHistory bounds what is held in memory, in bytes of messages; 0 is
	// a bound that suits most machines.
	MaxHistory int

	// unselected are the dead letters that are to stay, whatever they are.
	unselected map[uint64]bool
	// settled is what came out of a pass, told when the lease is given back.
	settled []Result
}

// Run redrives what is selected. What cannot be applied stays, with the new
// reason; the error is that of a server, or write.ErrLeaseLost where another
// command seized the lease. Then some may be done, and running it again is safe
// and right.
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

// Recount sets the index's total of dead letters to how many there are of
// messages that it has passed.
func Recount(ctx context.Context, js jetstream.JetStream, w *write.Writer) error {
	return w.RecountDeadLetters(ctx, func(ctx context.Context, checkpoint uint64) (int64, error) {
		seqs, err := stream.DeadLetterSeqs(ctx, js)
		return int64(len(slices.DeleteFunc(seqs, func(seq uint64) bool { return seq > checkpoint }))), err
	})
}

// accounts looks at the dead letters that are selected, and returns those that
// there is something to be done for by account.
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

// examine finds out which account a dead letter is about. It is done with one
// that cannot be applied, or has no effect.
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

// done removes a dead letter. It comes after the commit: a crash in between
// leaves it, and then it is redriven again.
func (r *Redrive) done(ctx context.Context, seq uint64) error {
	if err := stream.DeleteDeadLetter(ctx, r.JS, seq); err != nil {
		return err
	}
	r.OnResult(Result{Seq: seq})
	return nil
}

// stays says why a dead letter stays, and has it say so itself where what
// happened to it is another thing than the last time.
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

// pass redrives accounts: in one pass over the stream, or in several where
// their histories are too big to be held at once.
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
	// What was committed is so, whatever came after it.
	for _, res := range r.settled {
		if err := r.settle(ctx, res); err != nil {
			return err
		}
	}
	return err
}

// staysDead reports whether a message of an account in hand is a dead letter
// that was not selected. A letter of a former stream says nothing of it.
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

// foreign reports whether the stream has another message where the dead letter
// was. One that was too big to be copied is not compared.
func foreign(d stream.DeadLetter, data []byte) bool {
	return len(d.Payload) > 0 && !bytes.Equal(d.Payload, data)
}

// write seizes the lease, reads the little that is left to read, and folds the
// accounts' histories.
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

// checkpoint reads the checkpoint, and checks that it is one of this stream.
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

// apply redrives the dead letters of one account, together or, where Postgres
// refuses that, one behind the other.
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
			// Where the history is not whole, what came before the account's
			// own letters has nothing to add.
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

// settle does with a dead letter what came out for it.
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
