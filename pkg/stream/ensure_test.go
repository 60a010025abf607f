package stream_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

var allStreams = []string{stream.Posts, stream.DeadLetters, stream.IngestLog, "KV_" + stream.Leases, "KV_" + stream.Positions}

// configOf returns a stream's configuration as the server reports it.
func configOf(t testing.TB, js jetstream.JetStream, name string) map[string]any {
	t.Helper()
	reply, err := js.Conn().RequestWithContext(within(t, patience), "$JS.API.STREAM.INFO."+name, nil)
	require.NoError(t, err)
	var info struct {
		Config map[string]any `json:"config"`
	}
	require.NoError(t, json.Unmarshal(reply.Data, &info))
	require.NotEmpty(t, info.Config, "%s", reply.Data)
	return info.Config
}

func TestEnsureAndAdjust(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	config := func() jetstream.StreamConfig {
		s, err := js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		return s.CachedInfo().Config
	}
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 10)))
	a := contend(t.Context(), stream.NewLease(js, "holder"))
	held := a.requireHeld(t)
	for _, c := range []struct {
		name    string
		cfg     stream.Config
		changes int
		discard jetstream.DiscardPolicy
		bytes   int64
		age     time.Duration
	}{
		{name: "as made", discard: jetstream.DiscardNew, bytes: -1},
		{name: "bounded by bytes", cfg: stream.Config{MaxBytes: 1 << 20}, changes: 2, discard: jetstream.DiscardOld, bytes: 1 << 20},
		{name: "by age too", cfg: stream.Config{MaxAge: time.Hour}, changes: 1, discard: jetstream.DiscardOld, bytes: 1 << 20, age: time.Hour},
		{name: "by less than the server remembers ids", cfg: stream.Config{MaxAge: time.Minute}, changes: 2, discard: jetstream.DiscardOld, bytes: 1 << 20, age: time.Minute},
		{name: "nothing said", discard: jetstream.DiscardOld, bytes: 1 << 20, age: time.Minute},
		{name: "lifted", cfg: stream.Config{MaxBytes: -1, MaxAge: -1}, changes: 3, discard: jetstream.DiscardNew, bytes: -1},
	} {
		before := config()
		require.NoError(t, stream.Ensure(t.Context(), js, c.cfg), c.name)
		require.Equal(t, before, config(), "%s must not change without the lease", c.name)
		changes, err := stream.Adjust(t.Context(), js, c.cfg)
		require.NoError(t, err, c.name)
		require.Len(t, changes, c.changes, c.name)
		got := config()
		require.Equal(t, c.discard, got.Discard, c.name)
		require.Equal(t, c.bytes, got.MaxBytes, c.name)
		require.Equal(t, c.age, got.MaxAge, c.name)
		require.Equal(t, jetstream.FileStorage, got.Storage)
		require.True(t, got.AllowAtomicPublish)
	}
	// Settings that the programs need are corrected.
	change(t, js, func(s *jetstream.StreamConfig) { s.AllowAtomicPublish = false })
	changes, err := stream.Adjust(t.Context(), js, stream.Config{})
	require.NoError(t, err)
	require.Equal(t, []stream.Change{{Stream: "POSTS", Setting: "allow_atomic", From: "not set", To: "true"}}, changes)
	requireStored(t, js, 10)
	require.NoError(t, held.Err(), "the lease must outlast it")
	a.finish(t)
	_, err = stream.Adjust(t.Context(), js, stream.Config{Replicas: 3})
	require.ErrorContains(t, err, "change stream POSTS", "one server is no cluster")
}

// TestStreamSettingsBelongToOperator edits the streams of a cluster like an operator, and checks
// that a start changes only what is configured.
//
// Invariant: stream settings belong to the operator: a standby changes none, a leader only those
// that are configured or indispensable, and logs each change. See also
// TestStandbyKeepsStreamSettings and TestEnsureAndAdjust.
func TestStreamSettingsBelongToOperator(t *testing.T) {
	t.Parallel()
	servers := natstest.Cluster(t, 3, natstest.With(func(o *server.Options) { o.Tags.Add("disk:fast") }))
	js := servers[0].JetStream(t)
	require.NoError(t, stream.Ensure(within(t, patience), js, stream.Config{Replicas: 1}))
	require.NoError(t, openWriter(t, js).Append(within(t, patience), numbered(1, 10)))
	change(t, js, func(s *jetstream.StreamConfig) {
		s.Description = "ours"
		s.Replicas = 3
		s.Compression = jetstream.NoCompression
		s.RePublish = &jetstream.RePublish{Source: "posts.>", Destination: "copies.>", HeadersOnly: true}
		s.MaxMsgs, s.MaxBytes, s.MaxMsgSize, s.MaxMsgsPerSubject = 1_000_000, 1<<30, 2<<20, 500_000
		s.Duplicates = 30 * time.Second
		s.AllowRollup, s.AllowMsgTTL = true, true
		s.ConsumerLimits = jetstream.StreamConsumerLimits{MaxAckPending: 1000}
		s.Metadata = map[string]string{"team": "feeds"}
	})
	// The server applies one change at a time.
	poll.Until(t, patience, func() (bool, string) {
		s, err := js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		cfg := s.CachedInfo().Config
		cfg.Placement = &jetstream.Placement{Tags: []string{"disk:fast"}}
		_, err = js.UpdateStream(within(t, patience), cfg)
		return err == nil, fmt.Sprint(err)
	})
	log, err := js.Stream(t.Context(), stream.IngestLog)
	require.NoError(t, err)
	cfg := log.CachedInfo().Config
	cfg.MaxMsgs, cfg.Replicas = 77, 3
	_, err = js.UpdateStream(within(t, patience), cfg)
	require.NoError(t, err)

	before := map[string]map[string]any{}
	for _, name := range allStreams {
		before[name] = configOf(t, js, name)
	}
	require.EqualValues(t, 3, before[stream.Posts]["num_replicas"])
	for range 2 {
		for _, say := range []stream.Config{{}, {Replicas: 1}} {
			require.NoError(t, stream.Ensure(within(t, patience), js, say))
			changes, err := stream.Adjust(within(t, patience), js, say)
			require.NoError(t, err)
			require.Empty(t, changes)
			for _, name := range allStreams {
				require.Equal(t, before[name], configOf(t, js, name), "%s: the operator's settings must stay", name)
			}
		}
	}

	changes, err := stream.Adjust(within(t, patience), js, stream.Config{Replicas: 1, MaxAge: 720 * time.Hour})
	require.NoError(t, err)
	require.Equal(t, []stream.Change{{Stream: "POSTS", Setting: "max_age", From: "0s", To: "720h0m0s"}}, changes)
	before[stream.Posts]["max_age"] = float64(720 * time.Hour)
	require.Equal(t, before[stream.Posts], configOf(t, js, stream.Posts))

	changes, err = stream.Adjust(within(t, patience), js, stream.Config{Replicas: 3})
	require.NoError(t, err)
	var raised []string
	for _, c := range changes {
		require.Equal(t, stream.Change{Stream: c.Stream, Setting: "num_replicas", From: "1", To: "3"}, c)
		raised = append(raised, c.Stream)
	}
	require.Equal(t, []string{stream.DeadLetters, "KV_" + stream.Leases, "KV_" + stream.Positions}, raised)
	requireStored(t, js, 10)
}

// The side streams reserve little space, and even less on a small disk.
func TestEnsureFitsSmallDisk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ room, letters int64 }{{512 << 20, 256 << 20}, {79 << 20, 32 << 20}, {24 << 20, 4 << 20}} {
		js := natstest.Server(t, natstest.MaxStore(c.room)).JetStream(t)
		require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}), "%d", c.room)
		require.EqualValues(t, c.letters, configOf(t, js, stream.DeadLetters)["max_bytes"])
		require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 10)))
		require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}), "%d, again", c.room)
	}
	for room, stops := range map[int64]string{3 << 20: stream.DeadLetters, (1 + 1 + 16 + 256) << 20: stream.Posts} {
		js := natstest.Server(t, natstest.MaxStore(room)).JetStream(t)
		require.ErrorContains(t, stream.Ensure(within(t, patience), js, stream.Config{}), "create stream "+stops+": nats: API error: code=500 err_code=10047")
	}
}

// In an account that requires a size for each stream, everything is created within the account's
// limit.
func TestEnsureInAccountThatRequiresSizes(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]string{
		"a limit of all":          "max_file: 1GB",
		"a limit of one stream":   "max_file: 2GB, disk_max_stream_bytes: 100MB",
		"no limit but the server": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "nats.conf")
			require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `accounts { A { jetstream: { max_bytes: true %s }, users: [ { user: a, password: a } ] } }
no_auth_user: a`, map[bool]string{true: "", false: ", " + limits}[limits == ""]), 0o600))
			parsed, err := server.ProcessConfigFile(file)
			require.NoError(t, err)
			js := natstest.Server(t, natstest.With(func(o *server.Options) {
				o.Accounts, o.Users, o.NoAuthUser = parsed.Accounts, parsed.Users, parsed.NoAuthUser
			})).JetStream(t)
			_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "other", Subjects: []string{"other"}})
			require.ErrorContains(t, err, "requires a stream config to have max bytes set", "the premise of the test")

			require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{MaxAge: time.Hour}))
			for _, name := range allStreams {
				require.Positive(t, configOf(t, js, name)["max_bytes"], name)
			}
			cfg := configOf(t, js, stream.Posts)
			require.Equal(t, "new", cfg["discard"], "trimming by size was not configured")
			require.Greater(t, cfg["max_bytes"], float64(16<<20))
			changes, err := stream.Adjust(t.Context(), js, stream.Config{MaxAge: time.Hour})
			require.NoError(t, err)
			require.Empty(t, changes)
			require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 10)))
			a := contend(t.Context(), stream.NewLease(js, "holder"))
			a.requireHeld(t)
			a.finish(t)
		})
	}
}

// Invariant: nothing is written to a server without atomic batches, and the error names that
// server. See also TestConnectNATSToOldServer and TestWriterRefusesOldServer.
func TestCheckServer(t *testing.T) {
	t.Parallel()
	for version, old := range map[string]bool{
		"2.10.29": true, "2.11.12": true, "1.4.1": true, "2.12.0": false, "2.12.0-RC.1": false, "2.15.2": false, "3.0.0": false, "unheard of": false,
	} {
		nc, err := nats.Connect(natstest.Impostor(t, "127.0.0.1:0", version))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		err = stream.CheckServer(nc)
		require.Equal(t, old, err != nil, version)
		if old {
			require.EqualError(t, err, "NATS server old is version "+version+": Tagstream needs 2.12 or newer")
			js, err := stream.JetStream(nc, "")
			require.NoError(t, err)
			require.ErrorIs(t, stream.Ensure(t.Context(), js, stream.Config{}), stream.ErrOldServer, "nothing must be created there")
		}
	}
}

// If an older program's streams leave no space for the bucket of positions, ingest works without
// it, like that program.
func TestEnsureWithoutSpaceForPosition(t *testing.T) {
	t.Parallel()
	const room = 64 << 20
	js := natstest.Server(t, natstest.MaxStore(room)).JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	require.NoError(t, js.DeleteKeyValue(t.Context(), stream.Positions))
	st, err := js.AccountInfo(t.Context())
	require.NoError(t, err)
	left := int64(room) - int64(st.ReservedStore)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", MaxBytes: left - 100})
	require.NoError(t, err)

	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	_, err = stream.Adjust(t.Context(), js, stream.Config{})
	require.NoError(t, err)
	require.Error(t, stream.PutPosition(t.Context(), js, event.Position{Host: "http://a", Seq: 1}))
	p, err := stream.GetPosition(t.Context(), js)
	require.NoError(t, err)
	require.True(t, p.IsZero())
}

// The server's errors for impossible replicas or an unknown domain do not name a setting; ours do.
func TestErrorsNameWrongSettings(t *testing.T) {
	t.Parallel()
	srv, js := serve(t)
	require.ErrorContains(t, stream.Ensure(within(t, patience), js, stream.Config{Replicas: 3}), "TAGSTREAM_STREAM_REPLICAS asks for 3 servers")
	elsewhere, err := stream.JetStream(srv.Conn(t), "elsewhere")
	require.NoError(t, err)
	const says = `no server has JetStream in "elsewhere", the domain of TAGSTREAM_NATS_DOMAIN`
	require.ErrorContains(t, stream.Ensure(within(t, patience), elsewhere, stream.Config{}), says)
	_, err = stream.GetState(within(t, patience), elsewhere)
	require.ErrorContains(t, err, says)
}
