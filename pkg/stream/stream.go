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
	// Positions is the key-value bucket of the position that the writer resumes
	// from where the stream is empty.
	Positions = "TAGSTREAM_POSITIONS"

	postsPrefix      = "posts."
	deadLetterPrefix = "posts_dlq."
	ingestLogSubject = "ingest_log"
)

// LeaseTTL is how long a lease outlives its holder's last renewal: the longest
// time without a writer after one died.
const LeaseTTL = 6 * time.Second

// Subject is where events of a kind are published. The kind is the only token
// behind the prefix: DIDs stay out of subjects, did:web ones have dots.
func Subject(kind event.Kind) string { return postsPrefix + string(kind) }

// JetStream returns the API of the streams that are in a JetStream domain, "" for
// the server's own.
func JetStream(nc *nats.Conn, domain string) (jetstream.JetStream, error) {
	if domain == "" {
		return jetstream.New(nc)
	}
	return jetstream.NewWithDomain(nc, domain)
}

// State is the extent of the stream of events.
type State struct {
	// First and Last are the sequence numbers at its ends. An empty stream
	// has First = Last+1.
	First, Last uint64
	// Bytes is its size on disk.
	Bytes uint64
	// MaxBytes and MaxAge are beyond what it is trimmed, 0 where it is not.
	MaxBytes int64
	MaxAge   time.Duration
}

// GetState returns the extent of the stream of events. The error is
// jetstream.ErrStreamNotFound where ingest has not created it yet.
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

// Storage is what the account that the streams are in takes of the server's disk.
type Storage struct {
	Bytes uint64
	// Limit is how much it may take, 0 where the account has no limit.
	Limit int64
}

// GetStorage returns what the streams take together.
func GetStorage(ctx context.Context, js jetstream.JetStream) (Storage, error) {
	a, err := js.AccountInfo(ctx)
	if err != nil {
		return Storage{}, fmt.Errorf("look up what the streams take: %w", err)
	}
	return Storage{Bytes: a.Store, Limit: max(a.Limits.MaxStore, 0)}, nil
}

// CheckIndex checks that an index at message seq, which came from source, is of this stream,
// whose state was read after that. The error is ErrBehind where the stream ends before that
// message, or CheckSource's.
func CheckIndex(ctx context.Context, js jetstream.JetStream, st State, seq uint64, source event.Position) error {
	if seq > st.Last {
		return fmt.Errorf("%w: the index is at %d, the last message is %d", ErrBehind, seq, st.Last)
	}
	return CheckSource(ctx, js, seq, source)
}

// CheckSource compares the upstream position in the message at seq, its Source
// or its Checkpoint, with the one that an index has of it (a store.Checkpoint). A message that is
// gone or no event says nothing.
// The error wraps ErrReplaced, or is the server's.
func CheckSource(ctx context.Context, js jetstream.JetStream, seq uint64, want event.Position) error {
	// Nothing to compare in a new index, nor where the message is a dead letter: a newer
	// program may be able to read it.
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
	if got := ev.Checkpoint(); !same(got) && !same(ev.Source) {
		return fmt.Errorf("%w: message %d is from %s %d, not from %s %d", ErrReplaced, seq, got.Host, got.Seq, want.Host, want.Seq)
	}
	return nil
}

// GetMessage returns the message at seq, nil where it was erased or trimmed, or
// never was: the stream's leader says so.
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

// errNotOurs marks a last message that some other program wrote.
var errNotOurs = errors.New("the stream's last message is not an event")

// end is how the stream ends.
type end struct {
	// seq is the last sequence number ever given, 0 where none was: what the
	// next message follows.
	seq uint64
	// event is the last message there is, nil where none is, and batch the
	// batch that it was stored with.
	event *event.Event
	batch string
}

// readEnd reads how the stream ends.
func readEnd(ctx context.Context, js jetstream.JetStream) (end, error) {
	s, err := js.Stream(ctx, Posts)
	if err != nil {
		return end{}, fmt.Errorf("look up stream %s: %w", Posts, err)
	}
	st := s.CachedInfo().State
	if st.Msgs == 0 {
		return end{seq: st.LastSeq}, nil
	}
	// Not the one at LastSeq, which may be erased: the last that there is.
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
