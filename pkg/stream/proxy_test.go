package stream_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
)

// leaseKey is the subject of each change of the lease.
const leaseKey = "$KV." + stream.Leases + ".ingest"

// stored matches what makes the server store something in the stream of events: a single message,
// or the commit of a batch.
var stored = fault.Publish("posts.")

// to matches every message to a subject with that prefix.
func to(prefix string) fault.Match {
	return func(op fault.Op) bool { return strings.HasPrefix(op.Text, prefix) }
}

func newProxy(t testing.TB, s *natstest.TestServer) *fault.Proxy {
	t.Helper()
	return fault.New(t, fault.NATS, strings.TrimPrefix(s.URL(), "nats://"), &fault.Log{})
}

// through connects through a proxy.
func through(t testing.TB, p *fault.Proxy) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect("nats://"+p.Addr(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ReconnectBufSize(-1), nats.RetryOnFailedConnect(true))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Second))
	require.NoError(t, err)
	return js
}
