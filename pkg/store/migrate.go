package store

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// SchemaVersion is the newest migration. A test compares it with the files.
const SchemaVersion = 15

const (
	migrationsTable = "schema_migrations"
	// migrationTimeout bounds a statement: some fill a table from a whole index.
	migrationTimeout = 12 * time.Hour
	// Migrations that need a lock briefly give up if they do not get it at once, so that readers do
	// not queue behind them.
	lockRetries    = 60
	lockRetryPause = time.Second
	// cutSeenWithin is how soon the server notices that the client is gone.
	cutSeenWithin = time.Second
	// writerRole and readerRole are the group roles that deploy/postgres creates. Migrate grants
	// their rights if they exist.
	writerRole = "tagstream_writer"
	readerRole = "tagstream_reader"
)

// Migrate creates the schema if it is missing and brings it to this program's version, under a lock
// of the database, as the owner that o names. It finishes a run that was killed.
func Migrate(ctx context.Context, o Options, logger *slog.Logger) error {
	t, err := o.Target(pg.Owning)
	if err != nil {
		return err
	}
	conn, err := t.Connect(ctx)
	if err != nil {
		return fmt.Errorf("migrate schema %s: %w", t.Schema, err)
	}
	// The lock is the session's and ends with it.
	defer conn.Close(context.WithoutCancel(ctx))
	if err := lock(ctx, conn, migrationLock, logger); err != nil {
		return fmt.Errorf("migrate schema %s: %w", t.Schema, err)
	}
	if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{t.Schema}.Sanitize()); err != nil {
		return fmt.Errorf("create schema %s: %w", t.Schema, err)
	}
	if err := awaitLibrary(ctx, conn, t.Schema, logger); err != nil {
		return fmt.Errorf("migrate schema %s: %w", t.Schema, err)
	}
	err = up(ctx, t)
	for try := 0; lockTaken(err) && try < lockRetries; try++ {
		logger.Info("a migration waits for a lock", "schema", t.Schema)
		select {
		case <-ctx.Done():
			return fmt.Errorf("migrate schema %s: %w", t.Schema, context.Cause(ctx))
		case <-time.After(lockRetryPause):
		}
		err = up(ctx, t)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("migrate schema %s: %w", t.Schema, err)
	}
	if err := grant(ctx, conn, t.Schema); err != nil {
		return err
	}
	logger.Info("schema is current", "schema", t.Schema, "version", SchemaVersion)
	return nil
}

// up runs the missing migrations. It uses a separate connection, since one on which a migration
// failed stays in the failed transaction. The library has no context: when ctx ends, the connection
// is cut, which the server notices while it works.
func up(ctx context.Context, t pg.Target) error {
	t.Settings = append(slices.Clone(t.Settings), pg.Set("client_connection_check_interval", pg.Millis(cutSeenWithin)))
	conn := t.Config.ConnConfig.Copy()
	dial := conn.DialFunc
	conn.DialFunc = func(dialing context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(dialing, network, addr)
		if err == nil {
			context.AfterFunc(ctx, func() { c.Close() })
		}
		return c, err
	}
	db := stdlib.OpenDB(*conn, stdlib.OptionAfterConnect(t.Greet))
	defer db.Close()
	drv, err := migratepgx.WithInstance(db, &migratepgx.Config{
		MigrationsTable:  migrationsTable,
		SchemaName:       t.Schema,
		StatementTimeout: migrationTimeout,
	})
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	defer drv.Close()
	src, err := iofs.New(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("read the embedded migrations: %w", err)
	}
	m, err := migrate.NewWithInstance("embedded", src, "postgres", drv)
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	version, dirty, err := m.Version()
	switch {
	case errors.Is(err, migrate.ErrNilVersion):
	case err != nil:
		return err
	case version > SchemaVersion && dirty:
		return fmt.Errorf("a newer program's migration %d is unfinished; run that program's", version)
	case version > SchemaVersion:
		// A newer program migrated already. It left the schema usable for this one, see
		// docs/operations.md on upgrades.
		return nil
	case dirty:
		// The previous run was killed inside migration number version. Each one is a transaction
		// whose statements can run twice, so whether it took effect does not matter: run it again.
		before := database.NilVersion
		if prev, err := src.Prev(version); err == nil {
			before = int(prev)
		}
		if err := m.Force(before); err != nil {
			return fmt.Errorf("take up migration %d: %w", version, err)
		}
	}
	if err := m.Up(); err != nil && !errors.Is(err, migrate.ErrNoChange) {
		return err
	}
	return nil
}

// lockTaken reports whether a migration gave up waiting for a lock.
func lockTaken(err error) bool {
	var e database.Error
	if errors.As(err, &e) {
		err = e.OrigErr
	}
	return pg.LockTimedOut(err)
}

// EnsureMigrated migrates an outdated schema if o's role may. If it may not, it returns
// ErrNotMigrated.
func EnsureMigrated(ctx context.Context, o Options, logger *slog.Logger) error {
	current, err := IsMigrated(ctx, o)
	if err != nil || current {
		return err
	}
	err = Migrate(ctx, o, logger)
	if pg.IsCode(err, "42501") || errors.Is(err, pg.ErrPooled) { // insufficient privilege
		return fmt.Errorf("%w: %w", ErrNotMigrated, err)
	}
	return err
}

// IsMigrated reports whether the schema exists in a version that this program can use.
func IsMigrated(ctx context.Context, o Options) (bool, error) {
	var version int
	var dirty bool
	err := pg.Do(ctx, o, pg.Reading, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT version, dirty FROM "+pg.Qualified(cmp.Or(o.Schema, Live), migrationsTable)).Scan(&version, &dirty)
	})
	if err = pg.NotMigrated(err); errors.Is(err, ErrNotMigrated) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the schema's version: %w", err)
	}
	return version >= SchemaVersion && !dirty, nil
}
