package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Eraser removes messages from the stream of events for good: the server overwrites them in its
// files. Readers skip the gaps, see Reader. The stream's first message must stay, because it
// distinguishes a gap from trimming, and so must its last, because it tells the writer where to
// continue.
//
// For each message the server rewrites a block of up to 8 MiB, under the stream's lock: pause
// between calls.
type Eraser struct {
	js    jetstream.JetStream
	posts jetstream.Stream
}

// OpenEraser looks up the stream. The error is jetstream.ErrStreamNotFound or the server's.
func OpenEraser(ctx context.Context, js jetstream.JetStream) (*Eraser, error) {
	s, err := js.Stream(ctx, Posts)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", Posts, err)
	}
	return &Eraser{js, s}, nil
}

// Erase erases a message. A missing message is not an error.
func (e *Eraser) Erase(ctx context.Context, seq uint64) error {
	if err := secureDelete(ctx, e.js, e.posts, seq); err != nil {
		return fmt.Errorf("erase message %d of %s: %w", seq, Posts, err)
	}
	return nil
}

// EraseSame erases a message if it still has the given payload, and reports whether the stream has
// a different message at that number.
func (e *Eraser) EraseSame(ctx context.Context, seq uint64, payload []byte) (other bool, err error) {
	msg, err := GetMessage(ctx, e.js, seq)
	switch {
	case err != nil, msg == nil:
		return false, err
	case !bytes.Equal(msg.Data, payload):
		return true, nil
	}
	return false, e.Erase(ctx, seq)
}

// StoredBefore returns a number from first-1 to last: of the messages from first to last, exactly
// those up to it were stored before t. It sends about thirty requests.
func (e *Eraser) StoredBefore(ctx context.Context, t time.Time, first, last uint64) (uint64, error) {
	lo, hi := first, last+1 // every message below lo is from before t, none from hi on
	for lo < hi {
		mid := lo + (hi-lo)/2
		msg, err := askLeader(ctx, e.js, Posts, question{Seq: mid, NextFor: postsPrefix + ">"})
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			hi = mid
		case err != nil:
			return 0, fmt.Errorf("read message %d of %s: %w", mid, Posts, err)
		case !msg.Time.Before(t):
			hi = mid
		default:
			lo = msg.Sequence + 1
		}
	}
	return min(lo, last+1) - 1, nil
}

// HasGaps reports whether messages were erased from the middle of the stream.
func HasGaps(ctx context.Context, js jetstream.JetStream) (bool, error) {
	s, err := js.Stream(ctx, Posts)
	if err != nil {
		return false, fmt.Errorf("look up stream %s: %w", Posts, err)
	}
	return s.CachedInfo().State.NumDeleted > 0, nil
}

// HasMessage reports whether the stream has a message with a number in from..to.
func HasMessage(ctx context.Context, js jetstream.JetStream, from, to uint64) (bool, error) {
	msg, err := askLeader(ctx, js, Posts, question{Seq: from, NextFor: postsPrefix + ">"})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read message %d of %s: %w", from, Posts, err)
	}
	return msg.Sequence <= to, nil
}

// EraseDeadLetter removes a letter as DeleteDeadLetter does, and its bytes from the server's files.
// When the last letter goes, the server also drops files with leftovers of earlier letters.
func EraseDeadLetter(ctx context.Context, js jetstream.JetStream, seq uint64) error {
	s, err := js.Stream(ctx, DeadLetters)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", DeadLetters, err)
	}
	msg, err := askLeader(ctx, js, DeadLetters, question{LastFor: deadLetterSubjectOf(seq)})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err == nil {
		err = secureDelete(ctx, js, s, msg.Sequence)
	}
	if err != nil {
		return fmt.Errorf("erase dead letter %d: %w", seq, err)
	}
	return nil
}

// TidyDeadLetters makes the server drop its files of dead letters if there are no letters: they may
// still hold bytes of replaced or deleted ones.
func TidyDeadLetters(ctx context.Context, js jetstream.JetStream) error {
	s, err := js.Stream(ctx, DeadLetters)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", DeadLetters, err)
	}
	st := s.CachedInfo().State
	if st.Msgs > 0 || st.LastSeq == 0 {
		return nil
	}
	// Only up to this sequence: a letter may be stored at this moment.
	if err := s.Purge(ctx, jetstream.WithPurgeSequence(st.LastSeq+1)); err != nil {
		return fmt.Errorf("purge stream %s: %w", DeadLetters, err)
	}
	return nil
}

// secureDelete deletes a message and overwrites it. The server also says "failed" for a message
// that is already gone, as after a lost answer.
func secureDelete(ctx context.Context, js jetstream.JetStream, s jetstream.Stream, seq uint64) error {
	err := s.SecureDeleteMsg(ctx, seq)
	if err == nil {
		return nil
	}
	if _, lookErr := askLeader(ctx, js, s.CachedInfo().Config.Name, question{Seq: seq}); errors.Is(lookErr, jetstream.ErrMsgNotFound) {
		return nil
	}
	return err
}
