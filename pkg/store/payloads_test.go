package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
)

// TestNotePayloadsBesideARemoval: a message that is looked at while its post is being
// removed is due or seen to be gone. Else it would stay in the stream for ever.
func TestNotePayloadsBesideARemoval(t *testing.T) {
	t.Parallel()
	o := newDatabase(t)
	w, eraser := openLeader(t, o), openWriter(t, o, "erase")
	post := seedPosts(t, w, seed{posts: 1, second: func(i int) int { return i }, tags: func(int) []string { return []string{"art"} }})[0]
	again := store.Version{DID: post.Account.DID, Rkey: post.Rkey, Rev: post.Rev}
	seq := post.Seq + 7 // the same, read twice

	var gone []bool
	looked := make(chan error, 1)
	require.NoError(t, w.Apply(t.Context(), func(tx *store.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		err := tx.Write(t.Context(), store.Changes{
			Posts:   []store.PostChange{{Account: post.Account, Old: post, OldVisible: true}},
			Removed: []store.RemovedChange{{Account: post.Account, Rkey: post.Rkey, New: &store.Removed{Account: post.Account, Rkey: post.Rkey, Rev: post.Rev, At: epoch, Seq: seq + 1}}},
		})
		go func() {
			err := eraser.NotePayloads(t.Context(), []store.Version{again}, []uint64{seq})
			if err == nil {
				gone, err = eraser.Gone(t.Context(), []store.Version{again})
			}
			looked <- err
		}()
		select {
		case err := <-looked:
			looked <- err
		case <-time.After(200 * time.Millisecond): // it waits
		}
		return cp, err
	}))
	require.NoError(t, <-looked)
	due, err := eraser.DuePayloads(t.Context(), 0, seq, 10)
	require.NoError(t, err)
	require.True(t, gone[0] || len(due) > 1, "neither gone nor due")
}
