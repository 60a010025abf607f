package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// DeadLetter is a message that could not be applied, with why. On the server
// its payload is the message's data, as it was in the stream of events; the
// rest is in the headers below.
type DeadLetter struct {
	// Seq is the message's sequence number in the stream of events.
	Seq uint64
	// Reason is one of a closed list, for counting; Error says more.
	// Both are kept up to 400 bytes.
	Reason string
	Error  string
	At     time.Time
	// Payload is the message as it was stored; empty where some other program
	// stored one that is too big to be copied.
	Payload []byte
}

// Headers of a dead letter.
const (
	deadSeqHeader    = "Tagstream-Seq"
	deadReasonHeader = "Tagstream-Reason"
	deadErrorHeader  = "Tagstream-Error"
	deadAtHeader     = "Tagstream-At"
	// maxDeadText bounds each header, so that together they fit beside the
	// largest event: MaxPayload leaves them as much room.
	maxDeadText = 400
)

// ErrNoDeadLetter is returned by GetDeadLetter where none has the number.
var ErrNoDeadLetter = errors.New("there is no such dead letter")

// deadLetterSubjectOf is where the letter of a message is published: one
// subject each, so that one is found without reading all, and the newest of
// those with the same number stands for it.
func deadLetterSubjectOf(seq uint64) string {
	return deadLetterPrefix + strconv.FormatUint(seq, 10)
}

// PutDeadLetter stores d and returns when the server has acknowledged it. A
// letter that is put again (the batch around it was applied twice) replaces the
// one before.
func PutDeadLetter(ctx context.Context, js jetstream.JetStream, d DeadLetter) error {
	msg := &nats.Msg{
		Subject: deadLetterSubjectOf(d.Seq),
		Data:    d.Payload,
		Header: nats.Header{
			deadSeqHeader:    {strconv.FormatUint(d.Seq, 10)},
			deadReasonHeader: {headerText(d.Reason)},
			deadErrorHeader:  {headerText(d.Error)},
			deadAtHeader:     {d.At.UTC().Format(time.RFC3339Nano)},
		},
	}
	if limit := int(js.Conn().MaxPayload()); limit > 0 && len(msg.Data) > limit-payloadHeadroom {
		msg.Data = nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("store dead letter %d: %w", d.Seq, err)
	}
	return nil
}

// headerText makes a header's value of a text: one line, not endless.
func headerText(s string) string {
	if len(s) > maxDeadText {
		s = s[:maxDeadText]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "")))
}

// GetDeadLetter returns the letter of the message that had that number in the
// stream of events. The error is ErrNoDeadLetter or the server's.
func GetDeadLetter(ctx context.Context, js jetstream.JetStream, seq uint64) (DeadLetter, error) {
	s, err := js.Stream(ctx, DeadLetters)
	if err != nil {
		return DeadLetter{}, fmt.Errorf("look up stream %s: %w", DeadLetters, err)
	}
	msg, err := s.GetLastMsgForSubject(ctx, deadLetterSubjectOf(seq))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return DeadLetter{}, fmt.Errorf("%w: %d", ErrNoDeadLetter, seq)
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter %d: %w", seq, err)
	}
	return deadLetterFrom(msg)
}

// EachDeadLetter calls fn with every dead letter, in the order in which they
// were put last, until fn returns an error, and returns that. Letters put
// meanwhile may be left out.
func EachDeadLetter(ctx context.Context, js jetstream.JetStream, fn func(DeadLetter) error) error {
	s, err := js.Stream(ctx, DeadLetters)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", DeadLetters, err)
	}
	return eachMessage(ctx, s, 1, func(msg *jetstream.RawStreamMsg) error {
		d, err := deadLetterFrom(msg)
		if err != nil {
			return err
		}
		return fn(d)
	})
}

// DeleteDeadLetter removes a letter, as after its redrive. One that is not
// there is no error.
func DeleteDeadLetter(ctx context.Context, js jetstream.JetStream, seq uint64) error {
	s, err := js.Stream(ctx, DeadLetters)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", DeadLetters, err)
	}
	if err := s.Purge(ctx, jetstream.WithPurgeSubject(deadLetterSubjectOf(seq))); err != nil {
		return fmt.Errorf("delete dead letter %d: %w", seq, err)
	}
	return nil
}

func deadLetterFrom(msg *jetstream.RawStreamMsg) (DeadLetter, error) {
	d := DeadLetter{Reason: msg.Header.Get(deadReasonHeader), Error: msg.Header.Get(deadErrorHeader), Payload: msg.Data}
	var err error
	if d.Seq, err = strconv.ParseUint(msg.Header.Get(deadSeqHeader), 10, 64); err != nil {
		return d, fmt.Errorf("read message %d of %s: header %s: %w", msg.Sequence, DeadLetters, deadSeqHeader, err)
	}
	if d.At, err = time.Parse(time.RFC3339Nano, msg.Header.Get(deadAtHeader)); err != nil {
		return d, fmt.Errorf("read message %d of %s: header %s: %w", msg.Sequence, DeadLetters, deadAtHeader, err)
	}
	return d, nil
}

// eachMessage calls fn with the messages of a stream from sequence number first
// to the last one as of s.
func eachMessage(ctx context.Context, s jetstream.Stream, first uint64, fn func(*jetstream.RawStreamMsg) error) error {
	st := s.CachedInfo().State
	if st.Msgs == 0 {
		return nil
	}
	name := s.CachedInfo().Config.Name
	for seq := max(first, st.FirstSeq, 1); seq <= st.LastSeq; seq++ {
		msg, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // trimmed or removed
		}
		if err != nil {
			return fmt.Errorf("read message %d of %s: %w", seq, name, err)
		}
		if err := fn(msg); err != nil {
			return err
		}
	}
	return nil
}
