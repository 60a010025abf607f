package e2e_test

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/test/simnet"
)

// TestStandaloneVerbs runs each verb of docs/operations.md on the all-in-one program while it reads
// and serves. The answers must be right afterwards.
func TestStandaloneVerbs(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 30)
	require.NoError(t, simnet.Traffic{Count: 300, Seed: 7, TagsOnly: true}.Run(b.ctx, b.net))
	host := b.host()
	dir := t.TempDir()
	apiAddr, opsAddr := freeAddr(t), freeAddr(t)
	env := []string{
		"TAGSTREAM_DATA_DIR=" + dir, "TAGSTREAM_JETSTREAM_HOSTS=" + host.URL(), "TAGSTREAM_JETSTREAM_START=archive",
		"TAGSTREAM_API_LISTEN=" + apiAddr, "TAGSTREAM_OPS_LISTEN=" + opsAddr, "TAGSTREAM_LOG_LEVEL=warn",
	}
	verb := func(code int, command string) string {
		t.Helper()
		p := begin(t, "tagstream", strings.Fields(command), env...)
		require.Equal(t, code, p.exit(), "%s: %s", command, p.Output())
		return p.Output()
	}
	for _, command := range []string{"status", "log", "verify", "rebuild"} {
		out := verb(1, command)
		require.Contains(t, out, "no bin/tagstream runs on the data directory "+dir)
		require.Equal(t, 1, strings.Count(out, "\n"), out)
	}

	p := begin(t, "tagstream", nil, env...)
	awaitAnswer(t, "http://"+opsAddr+"/readyz")
	b.settle(host, "http://"+apiAddr)
	finished := make(chan error, 1)
	go func() { finished <- simnet.Traffic{Count: 1500, Rate: 50, Seed: 20}.Run(b.ctx, b.net) }()
	awaitTraffic(t, opsAddr)

	nc, js := ownNATS(t, dir)
	require.NoError(t, stream.PutDeadLetter(b.ctx, js, stream.DeadLetter{Seq: 1, Reason: "invalid", Error: "a test", Payload: []byte("{}")}))
	nc.Close()
	var status struct {
		Posts, StreamLast uint64
		Ingest, Indexer   string
	}
	require.NoError(t, json.Unmarshal([]byte(verb(0, "status")), &status))
	require.Positive(t, status.Posts)
	require.Positive(t, status.StreamLast)
	require.NotEmpty(t, status.Ingest)
	require.NotEmpty(t, status.Indexer)
	require.Contains(t, verb(0, "log"), `"what":"connected"`)
	require.Contains(t, verb(0, "dlq"), `"error":"a test"`)
	require.Contains(t, verb(0, "dlq show 1"), `"payload":{}`)
	verb(1, "dlq redrive 1")
	require.Contains(t, verb(0, "dlq drop 1"), `{"removed":1}`)
	verb(0, "migrate")
	require.Contains(t, verb(0, "verify --alone"), `"findings":0`)
	require.Contains(t, verb(0, "backfill --from -1h --for 59m59s"), `"complete":true`)
	require.Contains(t, verb(0, "reconcile --dry-run"), `"published":0`)
	require.Contains(t, verb(0, "rebuild"), "rebuilt the index from")
	require.Contains(t, verb(0, "verify"), `"findings":0`)
	verb(0, "keys --out "+filepath.Join(t.TempDir(), "keys"))
	verb(0, "health")
	require.NoError(t, <-finished)
	b.settle(host, "http://"+apiAddr)
	b.check("http://" + apiAddr)
	require.Contains(t, verb(0, "verify"), `"findings":0`)

	require.Zero(t, p.end(syscall.SIGTERM), p.Output())
	_, err := os.Stat(filepath.Join(dir, "servers.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
	verb(1, "status")
}

// ownNATS connects to the embedded NATS server like the verbs. Other users cannot read its secret,
// and the server refuses connections without it.
func ownNATS(t *testing.T, dir string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	file := filepath.Join(dir, "servers.json")
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var own struct{ NATS string }
	require.NoError(t, json.Unmarshal(data, &own))
	u, err := url.Parse(own.NATS)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", u.Hostname())
	_, err = nats.Connect("nats://" + u.Host)
	require.ErrorIs(t, err, nats.ErrAuthorization)
	_, err = nats.Connect("nats://tagstream:guess@" + u.Host)
	require.ErrorIs(t, err, nats.ErrAuthorization)
	nc, err := nats.Connect(own.NATS)
	require.NoError(t, err)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return nc, js
}
