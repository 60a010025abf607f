package pgtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Standby starts a server that follows this one by streaming, with the same roles and passwords,
// until Promote. It ends with the test. It needs pg_basebackup: without it the test is skipped;
// with CI=true it fails.
func (s *PrivateServer) Standby(t testing.TB) *PrivateServer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setupLimit)
	defer cancel()
	c, err := newCluster(ctx) // for its passwords, which all copies of the template share
	if err != nil {
		unavailable(t, err)
	}
	standby := &PrivateServer{cluster: c, config: s.config}
	t.Cleanup(func() { standby.close(t) })
	backup := filepath.Join(c.binaries.Dir, "pg_basebackup")
	if _, err := os.Stat(backup); err != nil {
		unavailable(t, errors.Join(errNoSource, err))
	}
	data := filepath.Join(c.serverDir(), "cluster")
	if err := os.RemoveAll(data); err != nil {
		t.Fatalf("pgtest: make a standby: %v", err)
	}
	// It also writes standby.signal and where the primary is.
	cmd := exec.CommandContext(ctx, backup, "--pgdata="+data, "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--dbname="+s.URL)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pgtest: make a standby: %v: %s", err, out)
	}
	standby.config.Dir = c.serverDir()
	standby.open(t)
	return standby
}

// Promote makes a standby a primary, and returns when it accepts writes.
func (s *PrivateServer) Promote(t testing.TB) {
	t.Helper()
	var done bool
	if err := s.Pool(t).QueryRow(t.Context(), "SELECT pg_promote()").Scan(&done); err != nil || !done {
		t.Fatalf("pgtest: promote a standby: done %t: %v", done, err)
	}
}
