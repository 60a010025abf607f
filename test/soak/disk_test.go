package soak_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tagstream/tagstream/pkg/stream"
)

// diskSize is the size of a small disk, in bytes. It must hold a few 16 MiB files of Postgres's
// write-ahead log.
const diskSize = 160 << 20

// canMount reports whether this user may mount file systems. Otherwise no disk is filled, and the
// run says so.
var canMount = sync.OnceValue(func() bool {
	dir, err := os.MkdirTemp("", "tagstream-soak-disk-")
	if err != nil {
		return false
	}
	defer os.Remove(dir)
	if exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir).Run() != nil {
		return false
	}
	return exec.Command("umount", dir).Run() == nil
})

// disk is a small file system.
type disk struct {
	t   testing.TB
	dir string
}

// newDisk mounts one with the owner of the file at like.
func newDisk(t testing.TB, dir, like string) *disk {
	t.Helper()
	d := &disk{t, dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=0700", diskSize), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount a small disk: %v: %s", err, out)
	}
	t.Cleanup(func() {
		// Lazily: its users may end a moment later.
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("unmount %s: %v: %s", dir, err, out)
		}
	})
	if err := sameOwner(like, dir); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill uses up all free space.
func (d *disk) fill() {
	f, err := os.Create(d.ballast())
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<16)
	for len(block) > 0 {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

// free releases the space.
func (d *disk) free() {
	if err := os.Remove(d.ballast()); err != nil {
		d.t.Fatal(err)
	}
}

// sameOwner sets a file's owner to that of another.
func sameOwner(as, path string) error {
	info, err := os.Stat(as)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("no owner of %s", as)
	}
	return os.Chown(path, int(st.Uid), int(st.Gid))
}

// noDisk is used if disks cannot be filled.
func (s *site) noDisk() failure {
	s.log.Add("SKIPPED, not allowed to mount a small disk")
	return failure{}
}

func fullFor(rng *rand.Rand) time.Duration {
	return 1500*time.Millisecond + time.Duration(rng.Int64N(int64(2*time.Second)))
}

// disk returns the site's small disk of that name, which it makes on the first call; fresh reports
// that it is new.
func (s *site) disk(name, dir, like string) (d *disk, fresh bool) {
	if d := s.disks[name]; d != nil {
		return d, false
	}
	d = newDisk(s.t, dir, like)
	s.disks[name] = d
	return d, true
}

// diskFullNATS moves the server's store to a small disk, fills it, and after a while frees space
// and restarts the server, as docs/operations.md says.
func (s *site) diskFullNATS(rng *rand.Rand) failure {
	if !canMount() {
		return s.noDisk()
	}
	var d *disk
	t := failure{uses: []string{"nats"}, steps: []step{
		once(0, func() {
			if d = s.disks["nats"]; d != nil {
				return
			}
			s.must(s.nats.Terminate())
			aside := s.natsDir() + ".aside"
			s.must(os.Rename(s.natsDir(), aside))
			d, _ = s.disk("nats", s.natsDir(), aside)
			s.must(os.CopyFS(d.dir, os.DirFS(aside)))
			s.must(s.nats.Start())
		}),
		once(time.Second, func() { d.fill() }),
		{0, func() bool {
			text, err := os.ReadFile(s.nats.Log)
			s.must(err)
			_, says := s.ingest.Ready()
			return bytes.Contains(text, []byte(syscall.ENOSPC.Error())) || strings.Contains(says, stream.ErrFull.Error())
		}},
		once(fullFor(rng), func() { d.free() }),
	}}
	t.steps = append(t.steps, s.restart(&s.nats, syscall.SIGTERM)...)
	t.steps = append(t.steps, s.counted("disk full under nats"))
	return t
}

// diskFullTables moves the index to a small disk and fills it: Postgres continues, but refuses
// everything that needs space.
func (s *site) diskFullTables(rng *rand.Rand) failure {
	if !canMount() {
		return s.noDisk()
	}
	var d *disk
	return failure{uses: []string{"postgres"}, steps: []step{
		once(0, func() {
			var fresh bool
			if d, fresh = s.disk("tables", filepath.Join(s.dir, "tables"), s.dataDir()); fresh {
				s.exec("CREATE TABLESPACE small LOCATION '" + d.dir + "'")
			}
			for _, table := range []string{"posts", "post_tags", "removed_posts", "post_langs", "tags"} {
				s.exec("ALTER TABLE tagstream." + table + " SET TABLESPACE small")
			}
			for _, index := range []string{"posts_pkey", "posts_account_rkey_key", "post_tags_pkey", "tags_name_key", "removed_posts_pkey"} {
				s.exec("ALTER INDEX tagstream." + index + " SET TABLESPACE small")
			}
			d.fill()
		}),
		{0, func() bool {
			_, err := s.super.Exec(s.t.Context(), "CREATE TABLE public.proof TABLESPACE small AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
			return err != nil && strings.Contains(err.Error(), "No space left")
		}},
		once(fullFor(rng), func() { d.free() }),
		s.counted("disk full under postgres's tables"),
	}}
}

// diskFullLog moves the write-ahead log to a small disk and fills it: Postgres stops at the log's
// next file, until there is space and it is restarted.
func (s *site) diskFullLog(rng *rand.Rand) failure {
	if !canMount() {
		return s.noDisk()
	}
	var d *disk
	return failure{uses: []string{"postgres"}, steps: []step{
		once(0, func() {
			if d = s.disks["log"]; d != nil {
				return
			}
			data := s.dataDir()
			s.pg.Stop(s.t)
			wal, aside := filepath.Join(data, "pg_wal"), filepath.Join(data, "pg_wal.aside")
			s.must(os.Rename(wal, aside))
			d, _ = s.disk("log", filepath.Join(s.dir, "log"), data)
			s.must(os.CopyFS(d.dir, os.DirFS(aside)))
			s.must(filepath.Walk(d.dir, func(path string, _ os.FileInfo, err error) error {
				if err != nil {
					return err
				}
				return sameOwner(data, path)
			}))
			s.must(os.Symlink(d.dir, wal))
			s.pg.Start(s.t)
		}),
		once(500*time.Millisecond, func() {
			d.fill()
			// Log files are created in advance: use them up.
			for range 8 {
				_, _ = s.super.Exec(s.t.Context(), "SELECT pg_switch_wal(), pg_logical_emit_message(false, 'soak', 'x')")
			}
		}),
		{0, func() bool { return s.super.Ping(s.t.Context()) != nil }},
		once(fullFor(rng), func() {
			d.free()
			s.pg.Restart(s.t)
		}),
		s.counted("disk full under postgres's log"),
	}}
}
