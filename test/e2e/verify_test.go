package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store/check"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
)

// TestVerifyWhileIndexing compares a live index that changes with the result of an interrupted
// rebuild, which is brought to the same message, and checks the live one alone with a read-only
// role.
func TestVerifyWhileIndexing(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	b.indexer(500)
	history := model.GenerateMessages(21, 6000)
	b.await(url, b.publish(history[:3000]...))
	ctx, interrupt := context.WithCancel(t.Context())
	_, err := b.tryRebuild(ctx, indexer.RebuildConfig{}, &steps{at: func(done uint64) {
		if done >= 1000 {
			interrupt()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)

	tryVerify := func(cfg indexer.VerifyConfig, p obs.Progress) (string, check.Findings, error) {
		t.Helper()
		b.runs++
		cfg.ID = fmt.Sprint("verify-", b.runs)
		cfg.Connect = func(context.Context) (*nats.Conn, error) { return nats.Connect("", nats.InProcessServer(b.nats)) }
		return indexer.Verify(t.Context(), cfg, slog.New(slog.DiscardHandler), p)
	}
	verify := func(cfg indexer.VerifyConfig, p obs.Progress) (string, check.Findings) {
		t.Helper()
		did, f, err := tryVerify(cfg, p)
		require.NoError(t, err)
		return did, f
	}
	published := 3000
	more := &steps{at: func(uint64) {
		if next := min(published+100, len(history)); next > published {
			b.publish(history[published:next]...)
			published = next
		}
	}}
	did, f := verify(indexer.VerifyConfig{Database: b.owner}, more)
	require.Zero(t, f.N, f.String())
	require.Equal(t, "tagstream was compared with tagstream_rebuild", did)
	require.Greater(t, published, 3000)

	did, f = verify(indexer.VerifyConfig{Database: b.reader, Alone: true}, more)
	require.Zero(t, f.N, f.String())
	require.Equal(t, "tagstream was checked alone", did)

	_, err = pgtest.Pool(t, b.owner.URL).Exec(t.Context(), `
		UPDATE tagstream_rebuild.posts SET rev = '3zzzzzzzzzzzz' WHERE key = (
			SELECT r.key FROM tagstream_rebuild.posts r JOIN tagstream.posts p USING (key) WHERE r.rev = p.rev ORDER BY r.seq LIMIT 1)`)
	require.NoError(t, err)
	_, f = verify(indexer.VerifyConfig{Database: b.owner}, more)
	require.Equal(t, 1, f.N, f.String())
	require.Contains(t, f.First, "differs in its revision")

	// As an older program leaves it.
	_, err = pgtest.Pool(t, b.owner.URL).Exec(t.Context(), `UPDATE tagstream_rebuild.schema_migrations SET version = version - 1`)
	require.NoError(t, err)
	b.await(url, b.publish(history[len(history)-1])) // the other index must be brought to this message
	_, _, err = tryVerify(indexer.VerifyConfig{Database: b.owner}, more)
	require.ErrorContains(t, err, "tagstream_rebuild is of an older program version")
	b.await(url, uint64(published))
}
