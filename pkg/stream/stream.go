package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

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

	postsPrefix       = "posts."
	deadLetterSubject = "posts_dlq"
	ingestLogSubject  = "ingest_log"
)

// LeaseTTL is how long a lease outlives its holder's last renewal: the longest
// time for which nobody writes after a writer died.
const LeaseTTL = 6 * time.Second

// Subject is where events of a kind are published. The kind is the only token
// behind the prefix: DIDs stay out of subjects, did:web ones have dots.
func Subject(kind event.Kind) string { return postsPrefix + string(kind) }

// Config is what an operator chooses about the streams.
type Config struct {
	// MaxBytes and MaxAge bound the stream by trimming its oldest messages;
	// 0 is no bound. Without bounds nothing is ever trimmed, and a full disk
	// stops the writer.
	MaxBytes int64
	MaxAge   time.Duration
	// Replicas of every stream in a NATS cluster; 0 means 1.
	Replicas int
}

const (
	deadLettersMaxBytes = 1 << 30
	ingestLogMaxBytes   = 16 << 20
	ingestLogMaxMsgs    = 10_000
)

// Ensure creates the streams and the lease bucket, or updates them to cfg.
// It is what ingest does first; it needs the rights of the streams' creator.
func Ensure(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	replicas := max(cfg.Replicas, 1)
	posts := jetstream.StreamConfig{
		Name:        Posts,
		Description: "Tagstream events in upstream order; see docs/stream.md",
		Subjects:    []string{postsPrefix + ">"},
		Storage:     jetstream.FileStorage,
		Compression: jetstream.S2Compression,
		Retention:   jetstream.LimitsPolicy,
		// Only a bound that the operator chose may trim. Without one,
		// DiscardNew turns whatever limit the server has into an error.
		Discard:            jetstream.DiscardNew,
		MaxBytes:           -1,
		Replicas:           replicas,
		AllowDirect:        true,
		AllowAtomicPublish: true,
		DenyDelete:         false, // erasure removes payloads of deleted posts
	}
	if cfg.MaxBytes > 0 || cfg.MaxAge > 0 {
		posts.Discard = jetstream.DiscardOld
		posts.MaxAge = cfg.MaxAge
		if cfg.MaxBytes > 0 {
			posts.MaxBytes = cfg.MaxBytes
		}
	}
	streams := []jetstream.StreamConfig{
		posts,
		{
			Name:        DeadLetters,
			Description: "Messages of POSTS that could not be applied",
			Subjects:    []string{deadLetterSubject},
			Storage:     jetstream.FileStorage,
			Discard:     jetstream.DiscardNew,
			MaxBytes:    deadLettersMaxBytes,
			Replicas:    replicas,
			AllowDirect: true,
		},
		{
			Name:        IngestLog,
			Description: "Ingest's connections and failures",
			Subjects:    []string{ingestLogSubject},
			Storage:     jetstream.FileStorage,
			Discard:     jetstream.DiscardOld,
			MaxBytes:    ingestLogMaxBytes,
			MaxMsgs:     ingestLogMaxMsgs,
			Replicas:    replicas,
			AllowDirect: true,
		},
	}
	for _, s := range streams {
		if _, err := js.CreateOrUpdateStream(ctx, s); err != nil {
			return fmt.Errorf("create stream %s: %w", s.Name, err)
		}
	}
	if _, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket:      Leases,
		Description: "Who may write to POSTS",
		TTL:         LeaseTTL,
		History:     1,
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
	}); err != nil {
		return fmt.Errorf("create bucket %s: %w", Leases, err)
	}
	return nil
}

// State is the extent of the stream of events.
type State struct {
	// First and Last are the sequence numbers at its ends. An empty stream
	// has First = Last+1.
	First, Last uint64
	// Bytes is its size on disk.
	Bytes uint64
}

// GetState returns the extent of the stream of events. The error is
// jetstream.ErrStreamNotFound where ingest has not created it yet.
func GetState(ctx context.Context, js jetstream.JetStream) (State, error) {
	s, err := js.Stream(ctx, Posts)
	if err != nil {
		return State{}, fmt.Errorf("look up stream %s: %w", Posts, err)
	}
	st := s.CachedInfo().State
	return State{First: max(st.FirstSeq, 1), Last: st.LastSeq, Bytes: st.Bytes}, nil
}

// errNotOurs marks a last message that some other program wrote.
var errNotOurs = errors.New("the stream's last message is not an event")

// last returns the stream's last message as stored, with its writer's id; seq
// is 0 where the stream never had one. A stream whose messages were all
// trimmed has seq > 0 and no event: there is then no position to resume from.
func last(ctx context.Context, js jetstream.JetStream) (seq uint64, ev *event.Event, writer string, err error) {
	s, err := js.Stream(ctx, Posts)
	if err != nil {
		return 0, nil, "", fmt.Errorf("look up stream %s: %w", Posts, err)
	}
	st := s.CachedInfo().State
	if st.Msgs == 0 {
		return st.LastSeq, nil, "", nil
	}
	msg, err := s.GetMsg(ctx, st.LastSeq)
	if err != nil {
		return 0, nil, "", fmt.Errorf("read message %d of %s: %w", st.LastSeq, Posts, err)
	}
	ev, err = event.Decode(msg.Data)
	if err != nil {
		return 0, nil, "", fmt.Errorf("read message %d of %s: %w: %w", st.LastSeq, Posts, errNotOurs, err)
	}
	return msg.Sequence, ev, msg.Header.Get(writerHeader), nil
}
