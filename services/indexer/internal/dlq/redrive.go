package dlq

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// nearEnd is how many messages may be left to read under the lease.
const nearEnd = 2000

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
	// results are those of a pass, stored and reported after the lease is given back.
	results []Result
}

// Run redrives the selection. What cannot be applied stays, with the new reason; the error is that
// of a server, or write.ErrLeaseLost if another command seized the lease. Then some letters may be
// done, and it is safe to run it again.
func (r *Redrive) Run(ctx context.Context, sel Selection) error {
	accounts, err := r.selected(ctx, sel)
	if err != nil {
		return err
	}
	if len(accounts) > 0 {
		if err := r.redrive(ctx, accounts); err != nil {
			return err
		}
	}
	// A crash before this leaves a total that is too high, until the next redrive.
	return Recount(ctx, r.JS, r.Writer)
}

// redrive redrives accounts: in one pass over the stream, or in several if their histories are too
// big to hold at once.
func (r *Redrive) redrive(ctx context.Context, accounts []*account) error {
	err := r.pass(ctx, accounts)
	if !errors.Is(err, errTooBig) {
		return err
	}
	if n := len(accounts); n > 1 {
		if err := r.redrive(ctx, accounts[:n/2]); err != nil {
			return err
		}
		return r.redrive(ctx, accounts[n/2:])
	}
	for _, seq := range accounts[0].letters {
		r.OnResult(Result{seq, ErrTooBig})
	}
	return nil
}

// pass reads the accounts' histories, folds them under the lease, and reports the results.
func (r *Redrive) pass(ctx context.Context, accounts []*account) error {
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
	r.results = nil
	err = r.write(ctx, h, accounts, whole)
	// What was committed stays done, whatever fails later.
	for _, res := range r.results {
		if err := r.report(ctx, res); err != nil {
			return err
		}
	}
	return err
}

// write seizes the lease, reads the last few messages, and folds the accounts' histories.
func (r *Redrive) write(ctx context.Context, h *histories, accounts []*account, whole bool) error {
	return r.Writer.Lead(ctx, r.Writer.Seize, func(cp store.Checkpoint) error {
		if err := r.Writer.Keep(ctx, func(ctx context.Context) error {
			return h.read(ctx, r.JS, cp.Seq, nil)
		}); err != nil {
			return err
		}
		for r.Writer.Pending() {
			if err := r.applier().DoPending(ctx); err != nil {
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
			r.results = append(r.results, Result{seq, ErrAhead})
			continue
		}
		letters = append(letters, seq)
	}
	if len(letters) == 0 {
		return nil
	}
	leftOut := map[uint64]bool{} // of letters
	fold := func() error {
		h := apply.History{DID: a.did, Through: through, Whole: whole}
		for _, step := range a.steps {
			// In a partial history, events before the account's own letters add nothing.
			if !leftOut[step.Seq] && (whole || step.Seq >= letters[0]) {
				h.Steps = append(h.Steps, step)
			}
		}
		return r.applier().Redrive(ctx, h)
	}
	err := fold()
	if err == nil {
		for _, seq := range letters {
			r.results = append(r.results, Result{Seq: seq})
		}
		return nil
	}
	if !write.Rejected(err) {
		return err
	}
	for _, seq := range letters {
		leftOut[seq] = true
	}
	for _, seq := range letters {
		delete(leftOut, seq)
		err := fold()
		switch {
		case write.Rejected(err):
			leftOut[seq] = true
		case err != nil:
			return err
		}
		r.results = append(r.results, Result{seq, err})
	}
	return nil
}

func (r *Redrive) applier() *apply.Applier { return &apply.Applier{Writer: r.Writer, Logger: r.Logger} }
