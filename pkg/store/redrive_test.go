package store_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
)

// TestSeize: the lease is taken from a holder that works, who is fenced; not
// from another that seized it; and it is given back like any other.
func TestSeize(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	indexer, first, second := openLeader(t, o), openWriter(t, o, "first"), openWriter(t, o, "second")
	require.NoError(t, add(t, indexer, "did:plc:a", "art", 7))
	cp, err := first.Checkpoint(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(7), cp.Seq)

	cp, err = first.Seize(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(7), cp.Seq)
	require.ErrorIs(t, indexer.Renew(t.Context()), store.ErrLeaseLost)
	require.ErrorIs(t, add(t, indexer, "did:plc:a", "photo", 8), store.ErrLeaseLost)
	_, err = indexer.Acquire(t.Context())
	require.ErrorIs(t, err, store.ErrLeaseHeld)
	_, err = second.Seize(t.Context())
	require.ErrorIs(t, err, store.ErrLeaseHeld)
	_, err = first.Seize(t.Context())
	require.NoError(t, err, "one's own")
	require.NoError(t, add(t, first, "did:plc:a", "photo", 8))

	require.NoError(t, first.Release(t.Context()))
	cp, err = indexer.Acquire(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(8), cp.Seq)
	_, err = second.Seize(t.Context())
	require.NoError(t, err)
}

func TestRecountDeadLetters(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	w := openLeader(t, o)
	require.NoError(t, add(t, w, "did:plc:a", "art", 7))
	require.NoError(t, w.RecountDeadLetters(t.Context(), func(_ context.Context, checkpoint uint64) (int64, error) {
		require.Equal(t, uint64(7), checkpoint)
		return 3, nil
	}))
	st, err := openReader(t, o).Status(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, st.DeadLetters)
	require.NoError(t, w.Renew(t.Context()), "the lease is not touched")
	require.ErrorIs(t, w.RecountDeadLetters(t.Context(), func(context.Context, uint64) (int64, error) { return 0, store.ErrNotFound }), store.ErrNotFound)
}
