package standalone

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// The disk space that the parts need to start and to continue: Postgres creates a cluster of 45 MB
// and keeps up to 80 MB of its log, NATS reserves room for dead letters.
const (
	postgresFirst, postgresAgain = 192 << 20, 32 << 20
	natsFirst, natsAgain         = 64 << 20, 32 << 20
)

// errNoRoom says that the disk is too full to start.
var errNoRoom = errors.New("not enough room")

// checkRoom returns an error if the disk of the data directory has less room than the parts there
// need. If that is noticed only later, it looks like a failure of a server.
func checkRoom(cfg Config, free func(dir string) (uint64, error)) error {
	var need uint64
	add := func(part string, first, again uint64) {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, part)); err == nil {
			first = again
		}
		need += first
	}
	if cfg.Database.URL == "" {
		add("postgres", postgresFirst, postgresAgain)
	}
	if cfg.ConnectNATS == nil {
		add("nats", natsFirst, natsAgain)
	}
	has, err := free(cfg.DataDir)
	if err != nil {
		return fmt.Errorf("check the free space for the data directory (TAGSTREAM_DATA_DIR): %w", err)
	}
	if has < need {
		return fmt.Errorf("the data directory (TAGSTREAM_DATA_DIR) is on a disk with %w: %d bytes are needed to start, %d are available", errNoRoom, need, has)
	}
	return nil
}

// freeBytes returns how much can be written to a directory's disk.
func freeBytes(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil //nolint:unconvert // their types differ between systems
}
