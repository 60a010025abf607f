package pgtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/tagstream/tagstream/pkg/dirlock"
	"github.com/tagstream/tagstream/pkg/pgserver"
)

const (
	// templateFormat is part of each template's name: a new number leaves the
	// old templates unused.
	templateFormat = "v1"
	// lockInterval is how often a directory that another test binary holds is tried again.
	lockInterval = 20 * time.Millisecond
)

// cluster is a copy of the template cluster.
type cluster struct {
	dir      string // removed by remove
	lock     *flock.Flock
	binaries pgserver.Binaries
}

func (c *cluster) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	defer cancel()
	err := pgserver.Remove(ctx, c.serverDir(), quiet())
	return errors.Join(err, os.RemoveAll(c.dir), c.lock.Close())
}

func (c *cluster) serverDir() string { return filepath.Join(c.dir, "server") }

// config returns the configuration of a test server.
func (c *cluster) config(settings map[string]string) pgserver.Config {
	return pgserver.Config{
		Dir:      c.serverDir(),
		Binaries: c.binaries,
		Settings: withFast(settings),
		Logger:   quiet(),
	}
}

// quiet logs only warnings: a test's output is for the test.
func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func openLocal(ctx context.Context) (source, error) {
	c, err := newCluster(ctx)
	if err != nil {
		return source{}, err
	}
	server, err := pgserver.Start(ctx, c.config(nil))
	if err != nil {
		return source{}, errors.Join(err, c.remove())
	}
	return source{
		name: fmt.Sprintf("Postgres %s from %s", c.binaries.Version, c.binaries.Dir),
		url:  server.URL(pgserver.Superuser),
		stop: func(ctx context.Context) error {
			return errors.Join(server.Stop(ctx), c.remove())
		},
	}, nil
}

// newCluster copies the template, which it creates the first time on a machine.
func newCluster(ctx context.Context) (*cluster, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, fmt.Errorf("make the test cache: %w", err)
	}
	// The lock covers making the template and sweeping, so that no half-made
	// template is copied and no new copy is taken for an abandoned one.
	lock, err := acquire(ctx, cache)
	if err != nil {
		return nil, fmt.Errorf("lock the test cache: %w", err)
	}
	defer lock.Close()
	binaries, err := pgserver.Find(ctx, "")
	if errors.Is(err, pgserver.ErrNotFound) {
		return nil, fmt.Errorf("local binaries: %w: %w", errNoSource, err)
	}
	if err != nil {
		return nil, err
	}
	if err := sweep(cache); err != nil {
		return nil, fmt.Errorf("remove what killed tests left in %s: %w", cache, err)
	}
	template := filepath.Join(cache, fmt.Sprintf("template-%s-%s", templateFormat, binaries.Version))
	if err := makeTemplate(ctx, template, binaries); err != nil {
		return nil, fmt.Errorf("make the template cluster: %w", err)
	}
	c := &cluster{binaries: binaries}
	if c.dir, err = os.MkdirTemp(cache, runPrefix); err != nil {
		return nil, err
	}
	if c.lock, err = dirlock.Acquire(c.dir); err != nil {
		return nil, err
	}
	if err := lock.Close(); err != nil { // others need not wait for the copy
		return nil, errors.Join(err, c.remove())
	}
	if err := os.CopyFS(c.serverDir(), os.DirFS(template)); err != nil {
		return nil, errors.Join(fmt.Errorf("copy the template cluster: %w", err), c.remove())
	}
	return c, nil
}

// makeTemplate creates the template if it is missing. A crash leaves only what the next call
// removes.
func makeTemplate(ctx context.Context, template string, binaries pgserver.Binaries) error {
	if _, err := os.Stat(template); err == nil {
		return nil
	}
	unfinished := template + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	c := cluster{dir: unfinished, binaries: binaries}
	server, err := pgserver.Start(ctx, c.config(nil))
	if err != nil {
		return err
	}
	if err := server.Stop(ctx); err != nil {
		return err
	}
	if err := os.Rename(c.serverDir(), template); err != nil {
		return err
	}
	return os.Remove(unfinished)
}

// runPrefix begins the name of each copy in the cache.
const runPrefix = "run-"

// sweep removes the copies of dead test binaries, and ends a server that one left paused.
func sweep(cache string) error {
	left, err := filepath.Glob(filepath.Join(cache, runPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		lock, err := dirlock.Acquire(dir)
		if err != nil {
			continue // in use
		}
		c := cluster{dir: dir, lock: lock}
		if err := c.remove(); err != nil {
			return err
		}
	}
	return nil
}

// cacheDir gives the directory that test binaries of this user share.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil || os.MkdirAll(base, 0o700) != nil {
		base = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	dir := filepath.Join(base, "tagstream-test")
	return dir, os.MkdirAll(dir, 0o700)
}

// acquire waits for the lock of a directory.
func acquire(ctx context.Context, dir string) (*flock.Flock, error) {
	ticker := time.NewTicker(lockInterval)
	defer ticker.Stop()
	for {
		lock, err := dirlock.Acquire(dir)
		var held *dirlock.HeldError
		if !errors.As(err, &held) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-ticker.C:
		}
	}
}
