package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Config holds an operator's settings of the streams. A zero field is not set, and the server's
// value stays.
type Config struct {
	// MaxBytes and MaxAge bound the stream by trimming its oldest messages; a negative value
	// removes the bound. Without bounds nothing is ever trimmed, and a full disk stops the writer.
	MaxBytes int64
	MaxAge   time.Duration
	// Replicas is the least number of copies of every stream in a NATS cluster.
	Replicas int
}

// The largest sizes of the other streams. The server reserves them, so if it lacks the room each is
// made smaller, down to the second number.
const (
	deadLettersMaxBytes, deadLettersMinBytes = 256 << 20, 4 << 20
	ingestLogMaxBytes, ingestLogMinBytes     = 16 << 20, 1 << 20
	ingestLogMaxMsgs                         = 10_000
	bucketBytes                              = 1 << 20
	// The sizes of the stream of events, in an account where each stream must have one.
	postsMaxBytes, postsMinBytes = 1 << 50, 16 << 20
)

// MinServer is the oldest NATS server with atomic batches.
const MinServer = "2.12"

// ErrOldServer is the error for a server older than MinServer.
var ErrOldServer = errors.New("needs " + MinServer + " or newer")

// CheckServer returns an error if the server that nc is connected to is too old.
func CheckServer(nc *nats.Conn) error {
	version := nc.ConnectedServerVersion()
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return nil //nolint:nilerr // not connected, or a version of another form
	}
	if major > 2 || major == 2 && minor >= 12 {
		return nil
	}
	return fmt.Errorf("NATS server %s is version %s: Tagstream %w", nc.ConnectedServerName(), version, ErrOldServer)
}

// Ensure creates the missing streams and buckets and changes no existing one: they belong to the
// operator. Ingest calls it first. It needs the rights to create streams.
func Ensure(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	if err := CheckServer(js.Conn()); err != nil {
		return err
	}
	replicas := max(cfg.Replicas, 1)
	// Create the buckets first: if there is little room, the streams leave none for them.
	for _, b := range []jetstream.KeyValueConfig{
		{Bucket: Leases, Description: "Who may write to POSTS", TTL: LeaseTTL},
		{Bucket: Positions, Description: "How far upstream was read, where POSTS is empty"},
	} {
		b.History, b.Storage, b.Replicas, b.MaxBytes = 1, jetstream.FileStorage, replicas, bucketBytes
		_, err := js.CreateKeyValue(ctx, b)
		if lacksRoom(err) && (b.Bucket == Positions || isThere(ctx, js, "KV_"+b.Bucket)) {
			continue // an older program did without positions: the writer says what that means
		}
		if err != nil && !exists(err) {
			return fmt.Errorf("create bucket %s: %w", b.Bucket, blame(err, js, replicas))
		}
	}
	compression := jetstream.S2Compression
	if replicas > 1 {
		// A clustered server that is killed (2.15.2) sometimes appends to a compressed block that
		// it can no longer read; its copy then makes no progress.
		compression = jetstream.NoCompression
	}
	posts := jetstream.StreamConfig{
		Name:        Posts,
		Description: "Tagstream events in upstream order; see docs/stream.md",
		Subjects:    []string{postsPrefix + ">"},
		Storage:     jetstream.FileStorage,
		Compression: compression,
		Retention:   jetstream.LimitsPolicy,
		// Only a bound that the operator chose may trim. Without one, DiscardNew turns any limit of
		// the server into an error.
		Discard:            jetstream.DiscardNew,
		MaxBytes:           -1,
		MaxAge:             max(cfg.MaxAge, 0),
		Replicas:           replicas,
		AllowDirect:        true,
		AllowAtomicPublish: true,
		DenyDelete:         false, // erasure removes payloads of deleted posts
	}
	if cfg.MaxBytes > 0 {
		posts.Discard, posts.MaxBytes = jetstream.DiscardOld, cfg.MaxBytes
	}
	for _, s := range []struct {
		jetstream.StreamConfig
		least int64 // how small it may be made
	}{
		{jetstream.StreamConfig{
			Name:        IngestLog,
			Description: "Ingest's connections and failures",
			Subjects:    []string{ingestLogSubject},
			Discard:     jetstream.DiscardOld,
			MaxBytes:    ingestLogMaxBytes,
			MaxMsgs:     ingestLogMaxMsgs,
			Replicas:    replicas,
			AllowDirect: true,
		}, ingestLogMinBytes},
		{jetstream.StreamConfig{
			Name:        DeadLetters,
			Description: "Messages of POSTS that could not be applied",
			Subjects:    []string{deadLetterPrefix + "*"},
			Discard:     jetstream.DiscardNew, // a full one stops the indexer
			MaxBytes:    deadLettersMaxBytes,
			// A newer letter of the same message replaces the older one.
			MaxMsgsPerSubject: 1,
			Replicas:          replicas,
			AllowDirect:       true,
		}, deadLettersMinBytes},
		{posts, posts.MaxBytes},
	} {
		err := create(ctx, js, s.StreamConfig, s.least)
		if isCode(err, errCodeSizeRequired) {
			// All that is left: everything else has its room already.
			s.MaxBytes, s.least = roomLeft(ctx, js, replicas), postsMinBytes
			err = create(ctx, js, s.StreamConfig, s.least)
		}
		if err != nil {
			return fmt.Errorf("create stream %s: %w", s.Name, blame(err, js, replicas))
		}
	}
	return nil
}

// blame names the setting that causes an error of the server, where that is certain.
func blame(err error, js jetstream.JetStream, replicas int) error {
	domain := js.Options().Domain
	switch {
	case isCode(err, errCodeReplicasUnclustered):
		return fmt.Errorf("%w: TAGSTREAM_STREAM_REPLICAS asks for %d servers, and this one is in no cluster", err, replicas)
	case domain != "" && (errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, nats.ErrNoResponders)):
		return fmt.Errorf("%w: no server has JetStream in %q, the domain of TAGSTREAM_NATS_DOMAIN", err, domain)
	}
	return err
}

// create creates a stream if it is missing. If the server lacks the room for its size, the stream
// is made smaller, but not below least bytes.
func create(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig, least int64) error {
	for {
		s, err := js.CreateStream(ctx, cfg)
		switch {
		case err == nil && cfg.AllowAtomicPublish && !s.CachedInfo().Config.AllowAtomicPublish:
			return fmt.Errorf("the NATS server that leads the stream %w", ErrOldServer)
		case err == nil, exists(err), lacksRoom(err) && isThere(ctx, js, cfg.Name):
			return nil
		case !lacksRoom(err) || cfg.MaxBytes/2 < max(least, 1): // or it has no size
			return err
		}
		cfg.MaxBytes /= 2
	}
}

// roomLeft returns how much of the account's limit no stream has reserved.
func roomLeft(ctx context.Context, js jetstream.JetStream, replicas int) int64 {
	a, err := js.AccountInfo(ctx)
	if err != nil {
		return postsMaxBytes // create finds out what there is
	}
	tier, copies := a.Tier, replicas
	if t, tiered := a.Tiers[fmt.Sprintf("R%d", replicas)]; tiered {
		tier, copies = t, 1 // its limit is that of one copy
	}
	if tier.Limits.MaxStore <= 0 {
		return postsMaxBytes
	}
	return max(tier.Limits.MaxStore-int64(tier.ReservedStore), 0) / int64(copies)
}

func exists(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || errors.Is(err, jetstream.ErrBucketExists)
}

// isThere reports whether a stream exists. A server without room for a stream reports that before
// it looks for an existing one.
func isThere(ctx context.Context, js jetstream.JetStream, name string) bool {
	_, err := js.Stream(ctx, name)
	return err == nil
}

// Change is a changed setting of a stream, in the server's words.
type Change struct{ Stream, Setting, From, To string }

// Adjust applies the settings in cfg and those that the programs need, and returns the changes. All
// other settings stay as the operator has them, and the number of copies never falls. Only the
// holder of the lease may call it: programs with different settings would undo each other's
// changes.
func Adjust(ctx context.Context, js jetstream.JetStream, cfg Config) ([]Change, error) {
	var done []Change
	for _, name := range []string{Posts, DeadLetters, IngestLog, leaseStream, positionStream} {
		changes, err := adjust(ctx, js, name, func(is settings) map[string]any {
			want := map[string]any{}
			if copies := is.number("num_replicas"); cfg.Replicas > copies {
				want["num_replicas"] = cfg.Replicas
				if name == Posts && copies == 1 {
					want["compression"] = "none" // see Ensure
				}
			}
			switch name {
			case Posts:
				want["allow_atomic"] = true
				if cfg.MaxBytes > 0 {
					want["max_bytes"], want["discard"] = cfg.MaxBytes, "old"
				} else if cfg.MaxBytes < 0 {
					want["max_bytes"], want["discard"] = -1, "new"
				}
				if cfg.MaxAge != 0 {
					want["max_age"] = max(cfg.MaxAge, 0)
				}
				if age := max(cfg.MaxAge, 0); age > 0 && age < time.Duration(is.number("duplicate_window")) {
					want["duplicate_window"] = age // the server wants no more
				}
			case leaseStream:
				want["max_age"] = LeaseTTL
			case DeadLetters:
				want["max_msgs_per_subject"] = 1
			}
			return want
		})
		done = append(done, changes...)
		if name == positionStream && isCode(err, jetstream.JSErrCodeStreamNotFound) {
			continue // see Ensure
		}
		if err != nil {
			return done, fmt.Errorf("change stream %s: %w", name, err)
		}
	}
	return done, nil
}

// settings are the settings of a stream, as the server writes them.
type settings map[string]json.RawMessage

func (s settings) number(name string) int {
	var n int
	_ = json.Unmarshal(s[name], &n) // 0 where it is not there
	return n
}

// adjust changes settings of one stream. It sends back unknown settings as it received them: a
// newer server has some that our library cannot name.
func adjust(ctx context.Context, js jetstream.JetStream, name string, wanted func(settings) map[string]any) ([]Change, error) {
	var info struct {
		Config settings `json:"config"`
	}
	if err := ask(ctx, js, "STREAM.INFO."+name, struct{}{}, &info); err != nil {
		return nil, err
	}
	want := wanted(info.Config)
	var changes []Change
	for _, setting := range slices.Sorted(maps.Keys(want)) {
		value, err := json.Marshal(want[setting])
		if err != nil {
			return nil, err
		}
		if string(value) == string(info.Config[setting]) {
			continue
		}
		c := Change{Stream: name, Setting: setting, From: "not set", To: string(value)}
		if was, set := info.Config[setting]; set {
			c.From = string(was)
		}
		for _, text := range []*string{&c.From, &c.To} {
			*text = strings.Trim(*text, `"`)
			if ns, err := json.Number(*text).Int64(); err == nil && strings.HasSuffix(setting, "_age") {
				*text = time.Duration(ns).String()
			}
		}
		changes, info.Config[setting] = append(changes, c), value
	}
	if len(changes) == 0 {
		return nil, nil
	}
	var answer struct {
		Config struct {
			Atomic bool `json:"allow_atomic"`
		} `json:"config"`
	}
	if err := ask(ctx, js, "STREAM.UPDATE."+name, info.Config, &answer); err != nil {
		return nil, err
	}
	if name == Posts && !answer.Config.Atomic {
		return nil, fmt.Errorf("the NATS server that leads it %w", ErrOldServer)
	}
	return changes, nil
}
