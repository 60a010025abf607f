package write_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Invariant: a writer whose term is over changes nothing: the epoch is checked under the row
// lock.
func TestLease(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	a, b := storetest.Writer(t, o, "a"), storetest.Writer(t, o, "b")
	_, err := a.Acquire(t.Context())
	require.NoError(t, err)
	_, err = b.Acquire(t.Context())
	require.ErrorIs(t, err, write.ErrLeaseHeld)
	require.NoError(t, a.Renew(t.Context()))

	require.NoError(t, a.Release(t.Context()))
	cp, err := b.Acquire(t.Context())
	require.NoError(t, err)
	require.Zero(t, cp.Seq)

	// The first holder wakes up and continues, without effect.
	ran := false
	err = a.Apply(t.Context(), func(_ *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		ran = true
		return cp, nil
	})
	require.ErrorIs(t, err, write.ErrLeaseLost)
	require.False(t, ran)
	require.ErrorIs(t, a.Renew(t.Context()), write.ErrLeaseLost)
}

// A program that waits for the lease terminates a holder that is frozen within a statement: the
// server has no timeout for that.
func TestFrozenHolder(t *testing.T) {
	t.Parallel()
	for name, frozen := range map[string]func(*write.Tx, context.Context, <-chan struct{}) error{
		"sending": (*write.Tx).CopyOnce, "receiving": (*write.Tx).ReceiveOnce,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := storetest.Database(t)
			a, b := storetest.Leader(t, o), storetest.Writer(t, o, "b")
			b.SetPatience(100 * time.Millisecond)
			_, err := pgtest.Pool(t, o.URL).Exec(t.Context(), "UPDATE tagstream.checkpoint SET lease_until = 'epoch'")
			require.NoError(t, err)
			begun, thaw, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			go func() {
				ended <- a.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
					close(begun)
					return cp, frozen(tx, t.Context(), thaw)
				})
			}()
			<-begun
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err = b.Acquire(ctx)
			close(thaw)
			require.NoError(t, err)
			require.Error(t, <-ended)
			require.ErrorIs(t, a.Renew(t.Context()), write.ErrLeaseLost)
		})
	}
}

// A holder that is only slow is not terminated, even if another waits longer than its patience.
func TestSlowHolder(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	a, b := storetest.Leader(t, o), storetest.Writer(t, o, "b")
	b.SetPatience(100 * time.Millisecond)
	pool := pgtest.Pool(t, o.URL)
	_, err := pool.Exec(t.Context(), "UPDATE tagstream.checkpoint SET lease_until = 'epoch'")
	require.NoError(t, err)
	waited := make(chan error, 1)
	require.NoError(t, a.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		go func() {
			_, err := b.Acquire(t.Context())
			waited <- err
		}()
		return cp, tx.Work(t.Context())
	}))
	require.ErrorIs(t, <-waited, write.ErrLeaseHeld)
}

// Invariant: a post never takes a key that another post has.
func TestKeyCollision(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w := storetest.Leader(t, o)
	account := &write.Account{DID: "did:plc:author", Seq: 1}
	key := event.NewKey(storetest.Epoch, "at://x")
	put := func(rkey string) *write.Post {
		p := &write.Post{Key: key, Account: account, Rkey: rkey, Rev: "3abcdefghijkl", CID: "bafy", Tags: []string{"art"}, IndexedAt: storetest.Epoch, Seq: 1, Record: []byte("{}")}
		c := write.Changes{Posts: []write.PostChange{{New: p, NewVisible: true}}}
		if account.ID == 0 {
			c.Accounts = []*write.Account{account}
		}
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			return cp, tx.Write(t.Context(), c)
		}))
		return p
	}
	require.Equal(t, key, put("first").Key)
	require.Equal(t, key.Next(), put("second").Key)
	require.Equal(t, key.Next().Next(), put("third").Key)
	r := storetest.Reader(t, o)
	for _, rkey := range []string{"first", "second", "third"} {
		p, err := r.Post(t.Context(), account.DID, rkey)
		require.NoError(t, err)
		require.Equal(t, rkey, p.Rkey)
	}
}

// A post whose possible keys are all taken is bad data, not a reason to stop.
func TestCrowdedKeyIsRejected(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w := storetest.Leader(t, o)
	account := &write.Account{DID: "did:plc:author", Seq: 1}
	var err error
	for i := range 9 {
		p := &write.Post{
			Key: event.NewKey(storetest.Epoch, "at://x"), Account: account, Rkey: fmt.Sprint(i), Rev: "3abcdefghijkl", CID: "bafy",
			Tags: []string{"art"}, IndexedAt: storetest.Epoch, Seq: 1, Record: []byte("{}"),
		}
		c := write.Changes{Posts: []write.PostChange{{New: p, NewVisible: true}}}
		if account.ID == 0 {
			c.Accounts = []*write.Account{account}
		}
		err = w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, tx.Write(t.Context(), c) })
	}
	require.ErrorContains(t, err, event.URI(account.DID, "8"))
	require.True(t, write.Rejected(err))
}

// A program that does not know a part of the index must not write to it.
//
// Invariant: a program that does not know everything the schema holds does not write to it. See
// also TestVersionOneCannotWrite.
func TestOutdatedWriter(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	leader := storetest.Leader(t, o)
	_, err := pgtest.Pool(t, o.URL).Exec(t.Context(), "UPDATE tagstream.checkpoint SET writer_version = $1", store.SchemaVersion+1)
	require.NoError(t, err)
	err = leader.Apply(t.Context(), func(_ *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) { return cp, nil })
	require.ErrorIs(t, err, write.ErrOutdated)
	_, err = storetest.Writer(t, o, "old").Acquire(t.Context())
	require.ErrorIs(t, err, write.ErrOutdated)
}

// An indexer for version 1 of the schema does not check whether it may write. The schema prevents
// it, while an API of that version continues to work.
func TestVersionOneCannotWrite(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, storetest.Database(t).URL)
	for _, sql := range []string{
		"UPDATE tagstream.checkpoint SET epoch = epoch + 1, holder = 'old', expires_at = clock_timestamp()",
		"UPDATE tagstream.checkpoint SET seq = 1, source_seq = 1, applied_at = clock_timestamp(), expires_at = clock_timestamp()",
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "42703", "version 1 must take it for a missing schema")
	}
	var n int
	require.NoError(t, pool.QueryRow(t.Context(), `
		SELECT c.dead_letters FROM tagstream.checkpoint c CROSS JOIN tagstream.heartbeat h WHERE c.posts + c.visible_posts + c.tags + c.seq + h.stream_last >= 0`).Scan(&n))
}
