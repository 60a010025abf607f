package stream_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
)

func TestAppendToFullStream(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 50} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			_, js := serve(t)
			change(t, js, func(s *jetstream.StreamConfig) { s.MaxBytes = 100_000 })
			w := openWriter(t, js)
			stored := fill(t, js, w, size)
			change(t, js, func(s *jetstream.StreamConfig) { s.MaxBytes = 1 << 20 })
			require.NoError(t, w.Append(within(t, patience), numbered(stored+1, size)), "there is space again")
			requireStored(t, js, stored+size)
		})
	}
}

func TestAppendToFullServer(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 200} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			// The other streams reserve more than this.
			js := natstest.Server(t, natstest.MaxStore(200_000)).JetStream(t)
			_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
				Name: stream.Posts, Subjects: []string{"posts.>"}, Discard: jetstream.DiscardNew, AllowAtomicPublish: true, AllowDirect: true,
			})
			require.NoError(t, err)
			w := openWriter(t, js)
			w.SetTimeout(time.Second)
			stored := fill(t, js, w, size)
			s, err := js.Stream(t.Context(), stream.Posts)
			require.NoError(t, err)
			require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSequence(uint64(stored))))
			require.NoError(t, w.Append(within(t, patience), numbered(stored+1, size)), "there is space again")
			require.Equal(t, uint64(stored+size), w.Seq())
		})
	}
}

// As on a full disk.
func TestAppendWithoutStaging(t *testing.T) {
	t.Parallel()
	var dir string
	_, js := serve(t, natstest.With(func(o *server.Options) { dir = o.StoreDir }))
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 5)))
	staging := filepath.Join(dir, "jetstream", "$G", "streams", stream.Posts, "batches")
	require.NoError(t, os.RemoveAll(staging))
	require.NoError(t, os.WriteFile(staging, nil, 0o600))
	w := openWriter(t, js)
	require.ErrorIs(t, w.Append(within(t, patience), numbered(6, 5)), stream.ErrFull)
	require.NoError(t, os.Remove(staging))
	require.NoError(t, w.Append(within(t, patience), numbered(6, 5)))
	requireStored(t, js, 10)
}

// fill appends batches until there is no space, and returns the number of stored events. The server
// may keep the beginning of the last batch.
func fill(t *testing.T, js jetstream.JetStream, w *stream.Writer, size int) (stored int) {
	t.Helper()
	for {
		err := w.Append(within(t, patience), numbered(stored+1, size))
		stored = int(w.Seq())
		if err != nil {
			t.Log(err)
			require.ErrorIs(t, err, stream.ErrFull)
			break
		}
		require.Less(t, stored, 10_000)
	}
	require.Positive(t, stored)
	require.Equal(t, sourceOf(stored), w.ResumeAt())
	requireStored(t, js, stored)
	require.ErrorIs(t, w.Append(within(t, patience), numbered(stored+1, size)), stream.ErrFull, "the error must be repeated")
	require.Equal(t, uint64(stored), w.Seq())
	return stored
}
