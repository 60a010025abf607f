package standalone

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
)

// A stream whose disk was full accepts messages again when there is room, without a restart, and has
// all that it accepted before.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", dir).CombinedOutput(); err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "a small disk is needed: %v: %s", err, out)
		t.Skipf("SKIPPED: not allowed to mount a small disk: %v: %s", err, out)
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", "-l", dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	ns, err := openNATS(dir, "secret", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer closeNATS(ns)
	nc, err := ns.connect("test", nil)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	ctx, cancel := context.WithCancel(t.Context())
	said, done := make(chan error, 1000), make(chan struct{})
	go func() {
		defer close(done)
		ns.watchRoom(ctx, 10*time.Millisecond, func(err error) { said <- err })
	}()
	defer func() { cancel(); <-done }()

	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	require.NoError(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	stored := uint64(0)
	put := func() error {
		attempt, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.Publish(attempt, "posts.create", make([]byte, 1<<10))
		if err == nil {
			stored++
		}
		return err
	}
	for put() == nil {
		require.Less(t, stored, uint64(1000), "the disk is not full")
	}
	require.ErrorContains(t, <-said, "the disk of the data directory is full")
	require.Error(t, put())

	require.NoError(t, f.Close())
	require.NoError(t, os.Remove(filler))
	for err := range said {
		if err == nil {
			break
		}
	}
	require.NoError(t, put())
	st, err := stream.GetState(t.Context(), js)
	require.NoError(t, err)
	require.GreaterOrEqual(t, st.Last-st.First+1, stored)
}
