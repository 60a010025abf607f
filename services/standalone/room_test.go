package standalone

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
)

func TestCheckRoom(t *testing.T) {
	t.Parallel()
	used := t.TempDir()
	for _, part := range []string{"postgres", "nats"} {
		require.NoError(t, os.Mkdir(filepath.Join(used, part), 0o700))
	}
	elsewhere := func(*slog.Logger, func(error)) (*nats.Conn, error) { return nil, nil }
	database := store.Options{URL: "postgres://elsewhere"}
	for name, c := range map[string]struct {
		cfg  Config
		need uint64
	}{
		"a first start":           {Config{DataDir: t.TempDir()}, 256 << 20},
		"a later start":           {Config{DataDir: used}, 64 << 20},
		"its own Postgres":        {Config{DataDir: t.TempDir(), ConnectNATS: elsewhere}, 192 << 20},
		"its own NATS, used":      {Config{DataDir: used, Database: database}, 32 << 20},
		"nothing of its own here": {Config{DataDir: t.TempDir(), Database: database, ConnectNATS: elsewhere}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			free := func(n uint64) func(string) (uint64, error) {
				return func(dir string) (uint64, error) {
					require.Equal(t, c.cfg.DataDir, dir)
					return n, nil
				}
			}
			require.NoError(t, checkRoom(c.cfg, free(c.need)))
			if c.need > 0 {
				require.ErrorIs(t, checkRoom(c.cfg, free(c.need-1)), errNoRoom)
			}
		})
	}
	require.EqualError(t, checkRoom(Config{DataDir: used}, func(string) (uint64, error) { return 1 << 20, nil }),
		"the data directory (TAGSTREAM_DATA_DIR) is on a disk with not enough room: 67108864 bytes are needed to start, 1048576 are available")
	n, err := freeBytes(used)
	require.NoError(t, err)
	require.Positive(t, n)
}
