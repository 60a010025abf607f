package e2e_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

// In TestPrivileges the programs do everything that they can do, over TLS, as the users and roles
// of deploy/. No server refuses anything, and every right that NATS grants is used.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	_, err := programs() // before the test's time limit starts
	require.NoError(t, err)
	d := newDeployed(t)
	b := newIngestBench(t, 30)
	nc := d.nats("operator")
	b.js, err = jetstream.New(nc)
	require.NoError(t, err)
	rights := d.watch("ingest", "indexer")
	// Only posts: an archive has no record of accounts that were hidden before.
	require.NoError(t, simnet.Traffic{Count: 200, Seed: 5, TagsOnly: true}.Run(b.ctx, b.net))
	host := b.host()

	once := func(code int, program, command string, env []string) string {
		t.Helper()
		p := begin(t, program, strings.Fields(command), env...)
		require.Equal(t, code, p.exit(), "%s %s: %s", program, command, p.Output())
		return p.Output()
	}
	var running []*program
	run := func(program string, env []string) (ops string) {
		t.Helper()
		ops = freeAddr(t)
		running = append(running, begin(t, program, nil, append(env, "TAGSTREAM_OPS_LISTEN="+ops)...))
		return ops
	}
	stop := func() {
		t.Helper()
		for _, p := range running {
			require.Zero(t, p.end(syscall.SIGTERM), p.Output())
			require.NotContains(t, strings.ToLower(p.Output()), "permission")
		}
		running = nil
	}
	ingestEnv := d.env("ingest", "", "TAGSTREAM_JETSTREAM_HOSTS="+host.URL(), "TAGSTREAM_JETSTREAM_START=archive")
	indexerEnv := d.env("indexer", "indexer")

	once(0, "indexer", "migrate", d.env("", "owner"))
	keys := filepath.Join(t.TempDir(), "cursor.keys")
	once(0, "api", "keys --out "+keys, nil)
	apiAddr := freeAddr(t)
	apiOps := run("api", d.env("", "api", "TAGSTREAM_API_LISTEN="+apiAddr, "TAGSTREAM_CURSOR_KEYS_FILE="+keys))
	url, api := "http://"+apiAddr, running
	running = nil
	ingestOps := run("ingest", ingestEnv)
	awaitAnswer(t, "http://"+ingestOps+"/readyz")
	first := running
	running = nil
	indexerOps := run("indexer", indexerEnv)
	run("indexer", indexerEnv)
	b.settle(host, url)
	standbyOps := run("ingest", append(slices.Clone(ingestEnv), "TAGSTREAM_STREAM_MAX_AGE=8760h"))
	poll.Until(t, ingestWait, func() (bool, string) {
		status, body := process.Fetch("http://" + standbyOps + "/readyz")
		return status != 0 && strings.Contains(body, "held by"), body
	})
	require.Zero(t, first[0].end(syscall.SIGTERM), first[0].Output())
	awaitAnswer(t, "http://"+standbyOps+"/readyz")
	require.NoError(t, simnet.Traffic{Count: 400, Seed: 6}.Run(b.ctx, b.net))
	b.settle(host, url)
	d.server.Restart(t) // the programs reconnect
	rights.await(t)
	b.settle(host, url)
	for program, ops := range map[string]string{"ingest": standbyOps, "indexer": indexerOps, "api": apiOps} {
		awaitAnswer(t, "http://"+ops+"/readyz") // a standby also notices that NATS is back
		once(0, program, "health", []string{"TAGSTREAM_OPS_LISTEN=" + ops})
	}
	require.Contains(t, once(0, "ingest", "log", ingestEnv), `"what":"connected"`)

	// Jobs in the running ingest.
	logger := slog.New(slog.NewTextHandler(testWriter{t, "job: "}, nil))
	deps := ingest.JobDeps{NATS: d.nats("ingest"), Progress: progress{logger}, Patience: ingestWait}
	settings := ingest.Config{Hosts: []string{host.URL()}}
	ingestPatience(&settings)
	filled, err := ingest.RunBackfill(b.ctx, ingest.BackfillConfig{Ingest: settings, From: "-1h", For: "59m59s"}, deps)
	require.NoError(t, err)
	t.Logf("%+v", filled)
	_, err = ingest.RunReconcile(b.ctx, ingest.ReconcileConfig{Ingest: settings, Margin: time.Microsecond}, deps)
	require.NoError(t, err)

	// Erase removed posts, as the indexer does after some hours.
	erase := func(within time.Duration) (posts, letters int) {
		posts, letters, err := indexer.Erase(b.ctx, indexer.EraseConfig{
			Database: store.Options{URL: d.database("indexer"), Password: d.secret("postgres_indexer.password")}, Within: within, ID: "erase",
		}, d.nats("indexer"), logger)
		require.NoError(t, err)
		return posts, letters
	}
	posts, _ := erase(week)
	require.Positive(t, posts)

	// Messages that no program can apply.
	stop()
	d.publishUnreadable(b.js, 3)
	running = nil
	run("indexer", indexerEnv)
	poll.Until(t, indexWait, func() (bool, string) {
		listed := once(0, "indexer", "dlq list", indexerEnv)
		return strings.Count(listed, `"reason":"unknown_version"`) == 3, listed
	})
	seqs, err := stream.DeadLetterSeqs(b.ctx, b.js)
	require.NoError(t, err)
	require.Contains(t, once(0, "indexer", fmt.Sprint("dlq show ", seqs[0]), indexerEnv), "of the future")
	once(1, "indexer", "dlq redrive --all", indexerEnv)
	once(0, "indexer", fmt.Sprint("dlq drop ", seqs[0]), indexerEnv)
	run("ingest", ingestEnv)

	once(0, "indexer", "rebuild", d.env("indexer", "owner"))
	once(0, "indexer", "verify", indexerEnv)
	once(0, "indexer", "verify --alone", d.env("", "api"))
	// The rebuild has stored the dropped dead letter again.
	_, letters := erase(time.Nanosecond)
	require.Equal(t, 3, letters)
	once(0, "indexer", "dlq redrive --all", indexerEnv) // there are none, but it counts them
	b.settle(host, url)
	b.check(url)

	stop()
	running = api
	stop()
	d.requireNoRefusal()
	require.Empty(t, rights.unused(), "rights that are granted but not used")
}

// publishUnreadable stores messages of a later version, followed by a copy of the last message,
// which holds the position from which ingest continues.
func (d *deployed) publishUnreadable(js jetstream.JetStream, n int) {
	d.t.Helper()
	s, err := js.Stream(d.t.Context(), stream.Posts)
	require.NoError(d.t, err)
	last, err := s.GetMsg(d.t.Context(), s.CachedInfo().State.LastSeq)
	require.NoError(d.t, err)
	for range n {
		_, err := js.Publish(d.t.Context(), last.Subject, []byte(`{"v":99,"kind":"of the future"}`))
		require.NoError(d.t, err)
	}
	_, err = js.Publish(d.t.Context(), last.Subject, last.Data)
	require.NoError(d.t, err)
	// Also erase the end, so that ingest searches backward from there.
	ack, err := js.Publish(d.t.Context(), last.Subject, last.Data)
	require.NoError(d.t, err)
	require.NoError(d.t, s.DeleteMsg(d.t.Context(), ack.Sequence))
}
