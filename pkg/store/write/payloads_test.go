package write_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// A message that a pass examines while its post is being removed must be reported as due or gone:
// otherwise it would stay in the stream forever.
func TestNotePayloadsDuringRemoval(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	w, eraser := storetest.Leader(t, o), storetest.Writer(t, o, "erase")
	post := storetest.SeedPosts(t, w, storetest.Seed{Posts: 1, Second: func(i int) int { return i }, Tags: func(int) []string { return []string{"art"} }})[0]
	repeated := write.Version{DID: post.Account.DID, Rkey: post.Rkey, Rev: post.Rev}
	seq := post.Seq + 7 // a second message with the same version

	var gone []bool
	looked := make(chan error, 1)
	require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		err := tx.Write(t.Context(), write.Changes{
			Posts:   []write.PostChange{{Account: post.Account, Old: post, OldVisible: true}},
			Removed: []write.RemovedChange{{Account: post.Account, Rkey: post.Rkey, New: &write.Removed{Account: post.Account, Rkey: post.Rkey, Rev: post.Rev, At: storetest.Epoch, Seq: seq + 1}}},
		})
		go func() {
			err := eraser.NotePayloads(t.Context(), []write.Version{repeated}, []uint64{seq})
			if err == nil {
				gone, err = eraser.Gone(t.Context(), []write.Version{repeated})
			}
			looked <- err
		}()
		select {
		case err := <-looked:
			looked <- err
		case <-time.After(200 * time.Millisecond): // it waits for the transaction
		}
		return cp, err
	}))
	require.NoError(t, <-looked)
	due, err := eraser.DuePayloads(t.Context(), 0, seq, 10)
	require.NoError(t, err)
	require.True(t, gone[0] || len(due) > 1, "neither gone nor due")
}
