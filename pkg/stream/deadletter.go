package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// DeadLetter is a message that could not be applied, with the reason. On the server its payload is
// the data of the message in the stream of events; the other fields are in the headers below.
type DeadLetter struct {
	// Seq is the message's sequence number in the stream of events.
	Seq uint64
	// Reason is one of a closed list, for counting; Error says more. Each is cut to 400 bytes.
	Reason string
	Error  string
	At     time.Time
	// Payload is the message as it was stored. It is empty if another program stored a message that
	// is too big to copy.
	Payload []byte
}

// Headers of a dead letter.
const (
	deadSeqHeader    = "Tagstream-Seq"
	deadReasonHeader = "Tagstream-Reason"
	deadErrorHeader  = "Tagstream-Error"
	deadAtHeader     = "Tagstream-At"
	// maxDeadText bounds each header, so that all of them fit next to the largest event: MaxPayload
	// reserves the room.
	maxDeadText = 400
)

// ErrNoDeadLetter is returned by GetDeadLetter if no letter has the number.
var ErrNoDeadLetter = errors.New("there is no such dead letter")

// deadLetterSubjectOf returns the subject of a message's letter. Each message has its own subject,
// so that its letter is found without reading all, and only the newest letter of a message counts.
func deadLetterSubjectOf(seq uint64) string {
	return deadLetterPrefix + strconv.FormatUint(seq, 10)
}

// PutDeadLetter stores d and returns when the server has acknowledged it. It replaces an earlier
// letter of the same message, which exists if the batch was applied twice.
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

// headerText turns a text into a header value: one line of limited length.
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

// GetDeadLetter returns the letter of the message with that number in the stream of events. The
// error is ErrNoDeadLetter or the server's.
func GetDeadLetter(ctx context.Context, js jetstream.JetStream, seq uint64) (DeadLetter, error) {
	msg, err := askLeader(ctx, js, DeadLetters, question{LastFor: deadLetterSubjectOf(seq)})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return DeadLetter{}, fmt.Errorf("%w: %d", ErrNoDeadLetter, seq)
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter %d: %w", seq, err)
	}
	return deadLetterFrom(msg)
}

// DeadLetterSeqs returns the message numbers of all dead letters, highest (newest) first.
func DeadLetterSeqs(ctx context.Context, js jetstream.JetStream) ([]uint64, error) {
	s, err := js.Stream(ctx, DeadLetters)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", DeadLetters, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(deadLetterPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("list stream %s: %w", DeadLetters, err)
	}
	seqs := make([]uint64, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		if seq, ok := deadLetterSeq(subject); ok {
			seqs = append(seqs, seq)
		}
	}
	slices.SortFunc(seqs, func(a, b uint64) int { return cmp.Compare(b, a) })
	return seqs, nil
}

// DeadLettersState is the number of letters and the disk space they use.
type DeadLettersState struct{ Count, Bytes, MaxBytes uint64 }

// GetDeadLettersState returns the state of the dead letters, including those of other programs.
func GetDeadLettersState(ctx context.Context, js jetstream.JetStream) (DeadLettersState, error) {
	s, err := js.Stream(ctx, DeadLetters)
	if err != nil {
		return DeadLettersState{}, fmt.Errorf("look up stream %s: %w", DeadLetters, err)
	}
	st, cfg := s.CachedInfo().State, s.CachedInfo().Config
	return DeadLettersState{Count: st.Msgs, Bytes: st.Bytes, MaxBytes: uint64(max(cfg.MaxBytes, 0))}, nil
}

// EachDeadLetter calls fn with every dead letter, that of the newest message first, until fn
// returns an error, and returns that error. Letters that are stored during the call may be left
// out.
func EachDeadLetter(ctx context.Context, js jetstream.JetStream, fn func(DeadLetter) error) error {
	seqs, err := DeadLetterSeqs(ctx, js)
	if err != nil {
		return err
	}
	for _, seq := range seqs {
		d, err := GetDeadLetter(ctx, js, seq)
		if errors.Is(err, ErrNoDeadLetter) {
			continue // removed in the meantime
		}
		if err != nil {
			return err
		}
		if err := fn(d); err != nil {
			return err
		}
	}
	return nil
}

// DeleteDeadLetter removes a letter, for example after its redrive. A missing letter is not an
// error.
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

// deadLetterSeq parses the number in a letter's subject. A subject of another form is not ours.
func deadLetterSeq(subject string) (uint64, bool) {
	token, ok := strings.CutPrefix(subject, deadLetterPrefix)
	if !ok {
		return 0, false
	}
	seq, err := strconv.ParseUint(token, 10, 64)
	return seq, err == nil && deadLetterSubjectOf(seq) == subject
}

// deadLetterFrom converts a stored message to a letter. The subject names the original message.
// Fields without a header, as in a letter of another program, stay empty.
func deadLetterFrom(msg *jetstream.RawStreamMsg) (DeadLetter, error) {
	seq, ok := deadLetterSeq(msg.Subject)
	if !ok {
		return DeadLetter{}, fmt.Errorf("read message %d of %s: subject %q is not that of a dead letter", msg.Sequence, DeadLetters, msg.Subject)
	}
	d := DeadLetter{
		Seq: seq, Reason: msg.Header.Get(deadReasonHeader), Error: msg.Header.Get(deadErrorHeader), At: msg.Time.UTC(), Payload: msg.Data,
	}
	if at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(deadAtHeader)); err == nil {
		d.At = at
	}
	return d, nil
}
