package firehose

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// verify returns why the host's history is not the one that pos is from; "" if nothing indicates
// that.
func (r *run) verify(ctx context.Context, pos event.Position) (mismatch string, err error) {
	if pos.Seq == 0 {
		return "", r.checkReachable(ctx, pos.Host) // the beginning is part of every history
	}
	f, err := r.eventAt(ctx, pos.Host, pos.Seq)
	switch {
	case isTooOld(err):
		return r.verifyArchived(ctx, pos)
	case errors.Is(err, errSilent):
		// A host that knows the cursor answers at once, with that event.
		return fmt.Sprintf("it is silent at sequence number %d", pos.Seq), nil
	case err != nil:
		return "", fmt.Errorf("verify position %d on %s: %w", pos.Seq, pos.Host, err)
	case f.seq < pos.Seq:
		return fmt.Sprintf("asked for sequence number %d, it returns %d", pos.Seq, f.seq), nil
	case f.seq == pos.Seq && !f.is(pos):
		return f.another(), nil
	case f.seq == pos.Seq && !f.time.Equal(pos.Time):
		return r.witnessedLater(ctx, pos)
	}
	return "", nil
}

// verifyArchived does the same for a position that is older than the host's live window: it may be
// from a former history, whose numbers the host has outgrown.
func (r *run) verifyArchived(ctx context.Context, pos event.Position) (mismatch string, err error) {
	s, err := r.sampleArchiveAfter(ctx, pos.Host, pos.Seq-1)
	if err != nil {
		return "", fmt.Errorf("verify position %d on %s: %w", pos.Seq, pos.Host, err)
	}
	if f := (frame{seq: s.seq, time: s.shown, id: s.first}); f.seq == pos.Seq {
		if !f.is(pos) {
			return f.another(), nil
		}
		if pos.Mark != "" {
			return "", nil
		}
	}
	// Archives drop what was replaced: then the event is missing.
	begins, err := r.historyBegins(ctx, pos.Host)
	if err != nil {
		return "", fmt.Errorf("verify position %d on %s: %w", pos.Seq, pos.Host, err)
	}
	if begins.After(pos.NetworkTime()) && begins.After(pos.Time) {
		return fmt.Sprintf("it begins at %s, the position is of %s", inWords(begins), inWords(pos.NetworkTime())), nil
	}
	return "", nil
}

// witnessedLater does the same for a host that shows another time for the event of a position.
// Either its operator has imported times, or it has a new history in which the same event has the
// same number. Hosts seek by the time of witnessing, which no import changes: in the history that
// was read, nothing up to the position was witnessed later than its time.
func (r *run) witnessedLater(ctx context.Context, pos event.Position) (mismatch string, err error) {
	if pos.Time.UnixMicro() < minTimeCursor {
		return "", nil
	}
	f, err := r.eventAt(ctx, pos.Host, uint64(pos.Time.UnixMicro())+1)
	if err == nil && f.seq > pos.Seq || errors.Is(err, errSilent) { // silent: nothing is later
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("verify position %d on %s: %w", pos.Seq, pos.Host, err)
	}
	return fmt.Sprintf("it witnessed its event %d only after %s", pos.Seq, inWords(pos.Time)), nil
}

// unmarkedSlack is how far the time of a position without a mark may be from the own time of the
// host's event at that number: hosts witness events somewhat later than they are made.
const unmarkedSlack = time.Minute

// is reports whether f may be the event at pos.
func (f frame) is(pos event.Position) bool {
	if pos.Mark != "" {
		return f.id.mark() == pos.Mark
	}
	own, ok := f.id.time()
	return f.time.Equal(pos.Time) || ok && own.Sub(pos.Time).Abs() <= unmarkedSlack
}

// another describes f as not being the expected event.
func (f frame) another() string {
	own, _ := f.id.time()
	return fmt.Sprintf("its event %d is another one, of %s at %s", f.seq, f.id.did, inWords(own))
}
