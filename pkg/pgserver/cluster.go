package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// clusterName is the data directory's name below Config.Dir.
	clusterName = "cluster"
	// newClusterName is where initdb works until the cluster is complete.
	newClusterName = "cluster.new"
	// closeLimit bounds the polite end of one connection.
	closeLimit = 5 * time.Second
)

// VersionError means that a cluster was written by another major version of Postgres than the
// available binaries. Find with the same directory looks for matching binaries.
type VersionError struct {
	// Dir is the cluster's data directory.
	Dir string
	// Cluster and Binaries are the two major versions.
	Cluster, Binaries int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("the data in %s belongs to Postgres %d and the binaries are version %d: install Postgres %d, or move that directory away and rebuild the index from the stream", e.Dir, e.Cluster, e.Binaries, e.Cluster)
}

// clusterMajor reads the major version that wrote a data directory. It returns fs.ErrNotExist if
// there is none.
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

// ensureCluster creates a missing cluster, checks that the binaries match an existing one, and
// gives it to the account.
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

// initCluster runs initdb in a temporary directory and renames it at the end: a crash never leaves
// half a cluster.
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
	passwordFile := dir + ".password"
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
	for _, arg := range []struct{ name, path string }{{"pgdata", dir}, {"pwfile", passwordFile}} {
		name, file, err := s.account.pass(cmd, arg.path)
		if err != nil {
			return err
		}
		defer file.Close() // nil is harmless
		cmd.Args = append(cmd.Args, "--"+arg.name+"="+name)
	}
	s.log.Info("initializing the database", "directory", s.clusterDir, "version", s.cfg.Binaries.Version)
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("run %s: %w: %s", cmd.Path, err, lastLines(string(out)))
	}
	return nil
}

// prepareDatabase creates missing roles and the database, and sets every password. After a crash
// the next start completes it.
func (s *Server) prepareDatabase(ctx context.Context) error {
	config, err := pgx.ParseConfig(s.DriverURL(Superuser))
	if err != nil {
		return fmt.Errorf("connect as %s: %w", Superuser, err)
	}
	config.Database = "postgres" // the other may not exist yet
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect as %s: %w", Superuser, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		conn.Close(ctx) // nothing is pending on it
	}()
	missing := func(catalog, column, name string) (missing bool, err error) {
		err = conn.QueryRow(ctx, fmt.Sprintf("SELECT NOT EXISTS (SELECT FROM %s WHERE %s = $1)", catalog, column), name).Scan(&missing)
		return missing, err
	}
	// Names match namePattern and passwords are letters and digits, so nothing needs quotes.
	for _, role := range s.cfg.Roles {
		create, err := missing("pg_roles", "rolname", role)
		if err == nil {
			verb := map[bool]string{true: "CREATE", false: "ALTER"}[create]
			_, err = conn.Exec(ctx, fmt.Sprintf("%s ROLE %s LOGIN PASSWORD '%s'", verb, pgx.Identifier{role}.Sanitize(), s.passwords[role]))
		}
		if err != nil {
			return fmt.Errorf("prepare role %s: %w", role, err)
		}
	}
	create, err := missing("pg_database", "datname", s.cfg.Database)
	if err == nil && create {
		_, err = conn.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s OWNER %s TEMPLATE template0",
			pgx.Identifier{s.cfg.Database}.Sanitize(), pgx.Identifier{cmp.Or(s.cfg.Owner, Superuser)}.Sanitize()))
	}
	if err != nil {
		return fmt.Errorf("prepare database %s: %w", s.cfg.Database, err)
	}
	return nil
}
