package stream_test

import (
	"os/exec"
	"testing"
	"time"
	"os"
	"context"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
)

func TestTmpfs(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, exec.Command("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", dir).Run())
	defer exec.Command("umount", "-l", dir).Run()
	s := natstest.Server(t, natstest.With(func(o *server.Options) { o.StoreDir = dir; o.JetStreamMaxStore = 10 << 30 }))
	js := s.JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	f, err := os.Create(dir + "/filler")
	require.NoError(t, err)
	_, err = f.Write(make([]byte, 39_200_000))
	t.Log(err)
	w := openWriter(t, js)
	w.SetTimeout(2 * time.Second)
	done := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		err := w.Append(ctx, numbered(done+1, 200))
		cancel()
		t.Log(done, w.Seq(), err)
		done = int(w.Seq())
		if err != nil {
			break
		}
	}
	f.Close()
	os.Remove(dir + "/filler")
	err = w.Append(within(t, 8*time.Second), numbered(done+1, 10))
	t.Log("freed", w.Seq(), err)
	s.Restart(t)
	t.Log("restarted")
	var w2 *stream.Writer
	for range 50 {
		w2, err = stream.OpenWriter(within(t, time.Second), js, "x", nil)
		if err == nil { break }
		time.Sleep(100*time.Millisecond)
	}
	t.Log(w2.Seq(), w2.Last().Seq)
	require.NoError(t, w2.Append(within(t, patience), numbered(int(w2.Last().Seq)+1, 10)))
	requireStored(t, js, int(w2.Seq()))
	_ = jetstream.ErrConsumerExists
}
