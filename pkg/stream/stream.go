package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

// Names on the NATS server. They are part of the contract with operators.
const (
	// Posts is the stream of events, the source of truth of the index.
	Posts = "POSTS"
	// DeadLetters holds the messages that the indexer could not apply.
	DeadLetters = "POSTS_DLQ"
	// IngestLog is the bounded log of ingest's connections and failures.
	IngestLog = "INGEST_LOG"
	// Leases is the key-value bucket of the writer's lease.
	Leases = "TAGSTREAM_LEASES"
	// Positions is the key-value bucket of the position from which the writer resumes if the stream
	// is empty.
	Positions = "TAGSTREAM_POSITIONS"

	postsPrefix      = "posts."
	deadLetterPrefix = "posts_dlq."
	ingestLogSubject = "ingest_log"
)

// LeaseTTL is how long a lease outlives its holder's last renewal: the longest time without a
// writer after one dies.
const LeaseTTL = 6 * time.Second

// Subject returns the subject of events of a kind. The kind is the only token after the prefix:
// DIDs are not part of subjects, because did:web ones contain dots.
func Subject(kind event.Kind) string { return postsPrefix + string(kind) }

// JetStream returns the API of the streams in a JetStream domain; "" is the server's own.
func JetStream(nc *nats.Conn, domain string) (jetstream.JetStream, error) {
	if domain == "" {
		return jetstream.New(nc)
	}
	return jetstream.NewWithDomain(nc, domain)
}

// State is the extent of the stream of events.
type State struct {
	// First and Last are the sequence numbers at its ends. An empty stream has First = Last+1.
	First, Last uint64
	// Bytes is its size on disk.
	Bytes uint64
	// MaxBytes and MaxAge are the bounds beyond which it is trimmed, 0 if there is none.
	MaxBytes int64
	MaxAge   time.Duration
}

// GetState returns the extent of the stream of events. The error is jetstream.ErrStreamNotFound if
// ingest has not created it yet.
func GetState(ctx context.Context, js jetstream.JetStream) (State, error) {
	s, err := js.Stream(ctx, Posts)
	if err != nil {
		return State{}, fmt.Errorf("look up stream %s: %w", Posts, blame(err, js, 1))
	}
	st, cfg := s.CachedInfo().State, s.CachedInfo().Config
	state := State{First: max(st.FirstSeq, 1), Last: st.LastSeq, Bytes: st.Bytes, MaxAge: cfg.MaxAge}
	if cfg.Discard == jetstream.DiscardOld { // else a size is where writing ends
		state.MaxBytes = max(cfg.MaxBytes, 0)
	}
	return state, nil
}

// Storage is the server disk used by the account that owns the streams.
type Storage struct {
	Bytes uint64
	// Limit is the account's limit, 0 if it has none.
	Limit int64
}

// GetStorage returns what all streams of the account use together.
func GetStorage(ctx context.Context, js jetstream.JetStream) (Storage, error) {
	a, err := js.AccountInfo(ctx)
	if err != nil {
		return Storage{}, fmt.Errorf("look up the disk usage of the streams: %w", err)
	}
	return Storage{Bytes: a.Store, Limit: max(a.Limits.MaxStore, 0)}, nil
}

// CheckIndex checks that an index whose last message is seq, made from source, belongs to this
// stream. st must be read after the index. The error is ErrBehind if the stream ends before that
// message, or CheckSource's.
func CheckIndex(ctx context.Context, js jetstream.JetStream, st State, seq uint64, source event.Position) error {
	if seq > st.Last {
		return fmt.Errorf("%w: the index is at %d, the last message is %d", ErrBehind, seq, st.Last)
	}
	return CheckSource(ctx, js, seq, source)
}

// CheckSource compares the upstream position in the message at seq, its Source or its ResumeAt,
// with the one that an index recorded for it (a store.Checkpoint). A message that is gone or is not
// an event proves nothing. The error wraps ErrReplaced, or is the server's.
func CheckSource(ctx context.Context, js jetstream.JetStream, seq uint64, want event.Position) error {
	// There is nothing to compare in a new index, or if the message is a dead letter, which a newer
	// program may be able to read.
	if seq == 0 || want.Seq == 0 {
		return nil
	}
	msg, err := GetMessage(ctx, js, seq)
	if err != nil || msg == nil {
		return err
	}
	ev, err := event.Decode(msg.Data)
	if err != nil {
		return nil //nolint:nilerr // a dead letter, then as now
	}
	// An index that an older program wrote has the time instead of the clock.
	same := func(p event.Position) bool {
		return p.Host == want.Host && p.Seq == want.Seq && (p.NetworkTime().Equal(want.Time) || p.Time.Equal(want.Time))
	}
	if got := ev.ResumeAt(); !same(got) && !same(ev.Source) {
		return fmt.Errorf("%w: message %d is from %s %d, not from %s %d", ErrReplaced, seq, got.Host, got.Seq, want.Host, want.Seq)
	}
	return nil
}

// GetMessage returns the message at seq, or nil if the stream's leader says that it was erased,
// trimmed, or never existed.
func GetMessage(ctx context.Context, js jetstream.JetStream, seq uint64) (*jetstream.RawStreamMsg, error) {
	msg, err := askLeader(ctx, js, Posts, question{Seq: seq})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read message %d of %s: %w", seq, Posts, err)
	}
	return msg, nil
}

// errNotOurs marks a last message that another program wrote.
var errNotOurs = errors.New("the stream's last message is not an event")

// end describes the end of the stream.
type end struct {
	// seq is the last sequence number ever given, 0 if none was. The next message follows it.
	seq uint64
	// event is the last existing message, nil if there is none. batch is the batch that it was
	// stored with.
	event *event.Event
	batch string
}

// readEnd reads the end of the stream.
func readEnd(ctx context.Context, js jetstream.JetStream) (end, error) {
	s, err := js.Stream(ctx, Posts)
	if err != nil {
		return end{}, fmt.Errorf("look up stream %s: %w", Posts, err)
	}
	st := s.CachedInfo().State
	if st.Msgs == 0 {
		return end{seq: st.LastSeq}, nil
	}
	// Not the one at LastSeq, which may be erased, but the last existing one.
	msg, err := askLeader(ctx, js, Posts, question{LastFor: postsPrefix + ">"})
	if err != nil {
		return end{}, fmt.Errorf("read message %d of %s: %w", st.LastSeq, Posts, err)
	}
	if msg.Sequence > st.LastSeq {
		return end{}, fmt.Errorf("read message %d of %s: it grew during the read", st.LastSeq, Posts)
	}
	ev, err := event.Decode(msg.Data)
	if err != nil {
		return end{}, fmt.Errorf("read message %d of %s: %w: %w", msg.Sequence, Posts, errNotOurs, err)
	}
	return end{seq: st.LastSeq, event: ev, batch: msg.Header.Get(batchHeader)}, nil
}
