package dlq

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

// Selection selects dead letters: those with these numbers or, without any, all; and those with
// this reason, if one is given.
type Selection struct {
	Seqs   []uint64
	Reason string
}

// selected examines the selected dead letters, and returns those that need work, by account.
func (r *Redrive) selected(ctx context.Context, sel Selection) ([]*account, error) {
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
	for _, seq := range slices.Compact(slices.Sorted(slices.Values(seqs))) {
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
	return slices.SortedFunc(maps.Values(byDID), func(a, b *account) int { return cmp.Compare(a.did, b.did) }), nil
}

// examine finds the account of a dead letter. A letter that cannot be applied, or has no effect, is
// done already.
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
			return "", true, r.keep(ctx, d, ErrTrimmed)
		case d.Seq > st.Last:
			return "", true, r.keep(ctx, d, ErrForeign)
		}
		return "", true, r.remove(ctx, d.Seq) // erased
	}
	if foreign(d, msg.Data) {
		return "", true, r.keep(ctx, d, ErrForeign)
	}
	ev, err := event.Decode(msg.Data)
	switch {
	case err != nil:
		return "", true, r.keep(ctx, d, err)
	case ev.Kind == event.KindPosition:
		return "", true, r.remove(ctx, d.Seq) // the checkpoint is past it
	}
	return ev.DID, false, nil
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
