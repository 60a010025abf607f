package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// clusterName is the data directory's name below Config.Dir.
	clusterName = "cluster"
	// newClusterName is where initdb works, until the cluster is whole.
	newClusterName = "cluster.new"
)

// VersionError says that a cluster was written by another major version of
// Postgres than the binaries at hand. Find with the same directory looks for
// binaries that match.
type VersionError struct {
	// Dir is the cluster's data directory.
	Dir string
	// Cluster and Binaries are the two major versions.
	Cluster, Binaries int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("the data in %s belongs to Postgres %d and the binaries are version %d: install Postgres %d, or move that directory away and rebuild the index from the stream", e.Dir, e.Cluster, e.Binaries, e.Cluster)
}

// clusterMajor reads the major version that wrote a data directory. It returns
// fs.ErrNotExist where there is none.
func clusterMajor(clusterDir string) (int, error) {
	path := filepath.Join(clusterDir, "PG_VERSION")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read the version in %s: %w", path, err)
	}
	return major, nil
}

// ensureCluster makes the cluster where there is none, checks that the binaries
// fit the one there is, and makes it the account's.
func (s *Server) ensureCluster(ctx context.Context) error {
	major, err := clusterMajor(s.clusterDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.initCluster(ctx); err != nil {
			return fmt.Errorf("initialize the cluster in %s: %w", s.clusterDir, err)
		}
	case err != nil:
		return err
	case major != s.cfg.Binaries.Major:
		return &VersionError{Dir: s.clusterDir, Cluster: major, Binaries: s.cfg.Binaries.Major}
	}
	if err := s.account.grant(s.clusterDir); err != nil {
		return fmt.Errorf("give the cluster to user id %d: %w", s.account.uid, err)
	}
	// Postgres refuses a directory that others can read, such as a copied one.
	if err := os.Chmod(s.clusterDir, 0o700); err != nil {
		return fmt.Errorf("close the cluster to other users: %w", err)
	}
	return nil
}

// initCluster runs initdb in a directory beside the final one and renames it at
// the end: a crash leaves no cluster, never half of one.
func (s *Server) initCluster(ctx context.Context) error {
	if entries, err := os.ReadDir(s.clusterDir); err == nil && len(entries) > 0 {
		return errors.New("the directory holds files but no cluster: move them away")
	}
	dir := filepath.Join(s.cfg.Dir, newClusterName)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove an unfinished one: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := s.account.grant(dir); err != nil {
		return err
	}
	if err := s.runInitdb(ctx, dir); err != nil {
		return err
	}
	if err := os.Remove(s.clusterDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(dir, s.clusterDir); err != nil {
		return err
	}
	return syncDir(s.cfg.Dir)
}

func (s *Server) runInitdb(ctx context.Context, dir string) error {
	passwordFile := filepath.Join(dir + ".password")
	if err := writeFileSync(passwordFile, s.passwords[Superuser]+"\n"); err != nil {
		return err
	}
	defer os.Remove(passwordFile)
	if err := s.account.grant(passwordFile); err != nil {
		return err
	}
	cmd := s.account.command(ctx, filepath.Join(s.cfg.Binaries.Dir, "initdb"),
		"--username="+Superuser, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions")
	dirName, dirFile, err := s.account.pass(cmd, dir)
	if err != nil {
		return err
	}
	defer dirFile.Close() // nil is harmless
	passwordName, passwordHandle, err := s.account.pass(cmd, passwordFile)
	if err != nil {
		return err
	}
	defer passwordHandle.Close()
	cmd.Args = append(cmd.Args, "--pgdata="+dirName, "--pwfile="+passwordName)
	s.log.Info("initializing the database", "directory", s.clusterDir, "version", s.cfg.Binaries.Version)
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("run %s: %w: %s", cmd.Path, err, lastLines(string(out)))
	}
	return nil
}
