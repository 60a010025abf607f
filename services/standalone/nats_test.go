package standalone

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/services/api"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/ingest"
)

// The server's warnings about its files after a crash become one calm line. Other warnings stay.
func TestWarningsOfRecovery(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := natsLogger{log: slog.New(slog.NewTextHandler(&out, nil)), fatal: &atomic.Bool{}, recovers: &atomic.Bool{}, full: &atomic.Bool{}}
	l.Warnf("Filestore [%s] Recovering stream state from index errored: %v", "$G > POSTS", "corrupt state")
	l.Warnf("Filestore [%s] Recovering TTL state from index errored: %v", "$G > KV_TAGSTREAM_LEASES", "no such file")
	l.Warnf("JetStream is %s", "slow")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 2)
	require.Contains(t, lines[0], "the stream was not closed cleanly; checking all of it, nothing is lost")
	require.Contains(t, lines[1], "JetStream is slow")
	require.NotContains(t, out.String(), "errored")
}

// A component in /readyz is a server, or a service and its part.
func TestComponentNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		componentNATS, componentPostgres, ingest.ComponentStream, ingest.ComponentFirehose,
		indexer.HealthDatabase, indexer.HealthStream, api.HealthDatabase, api.HealthListener,
	} {
		require.Regexp(t, `^(nats|postgres|(ingest|indexer|api)\.[a-z]+)$`, name)
	}
}
