package write_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// Seize takes the lease from a working holder, which is then fenced, but not from another program
// that seized it. A seized lease is released like any other.
func TestSeize(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	indexer, first, second := storetest.Leader(t, o), storetest.Writer(t, o, "first"), storetest.Writer(t, o, "second")
	require.NoError(t, storetest.Add(t, indexer, "did:plc:a", "art", 7))
	cp, err := first.Checkpoint(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(7), cp.Seq)

	cp, err = first.Seize(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(7), cp.Seq)
	require.ErrorIs(t, indexer.Renew(t.Context()), write.ErrLeaseLost)
	require.ErrorIs(t, storetest.Add(t, indexer, "did:plc:a", "photo", 8), write.ErrLeaseLost)
	_, err = indexer.Acquire(t.Context())
	require.ErrorIs(t, err, write.ErrLeaseHeld)
	_, err = second.Seize(t.Context())
	require.ErrorIs(t, err, write.ErrLeaseHeld)
	_, err = first.Seize(t.Context())
	require.NoError(t, err, "seize it twice")
	require.NoError(t, storetest.Add(t, first, "did:plc:a", "photo", 8))

	require.NoError(t, first.Release(t.Context()))
	cp, err = indexer.Acquire(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(8), cp.Seq)
	_, err = second.Seize(t.Context())
	require.NoError(t, err)
}

func TestRecountDeadLetters(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w := storetest.Leader(t, o)
	require.NoError(t, storetest.Add(t, w, "did:plc:a", "art", 7))
	require.NoError(t, w.RecountDeadLetters(t.Context(), func(_ context.Context, checkpoint uint64) (int64, error) {
		require.Equal(t, uint64(7), checkpoint)
		return 3, nil
	}))
	st, err := storetest.Reader(t, o).Status(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, st.DeadLetters)
	require.NoError(t, w.Renew(t.Context()), "the lease must not change")
	require.ErrorIs(t, w.RecountDeadLetters(t.Context(), func(context.Context, uint64) (int64, error) { return 0, query.ErrNotFound }), query.ErrNotFound)
}
