package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schemaVersion is the newest migration. A test compares it with the files.
const schemaVersion = 7

const (
	migrationsTable = "schema_migrations"
	// migrationTimeout bounds a statement: some fill a table from a whole index.
	migrationTimeout = 12 * time.Hour
	// Migrations that need a lock for a moment give it up when they do not get it
	// at once, so that readers are not kept waiting behind them.
	lockRetries    = 60
	lockRetryPause = time.Second
	// cutSeenWithin is how soon the server sees that it works for nobody any more.
	cutSeenWithin = time.Second
	// writerRole and readerRole are the group roles that deploy/postgres
	// creates; where they exist, Migrate gives them their rights.
	writerRole = "tagstream_writer"
	readerRole = "tagstream_reader"
)

// Migrate creates the schema if need be and brings it to this program's
// version, under a lock of the database, as the owner that o names. A run
// that was killed half-way is taken up and finished.
func Migrate(ctx context.Context, o Options, logger *slog.Logger) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	schema := cfg.ConnConfig.RuntimeParams["search_path"]
	db := stdlib.OpenDB(*cfg.ConnConfig)
	defer db.Close()
	unlock, err := lock(ctx, db)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := db.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{schema}.Sanitize()); err != nil {
		return fmt.Errorf("create schema %s: %w", schema, err)
	}
	err = up(ctx, cfg.ConnConfig, schema)
	for try := 0; lockTaken(err) && try < lockRetries; try++ {
		logger.Info("a migration waits for a lock", "schema", schema)
		select {
		case <-ctx.Done():
			return fmt.Errorf("migrate schema %s: %w", schema, context.Cause(ctx))
		case <-time.After(lockRetryPause):
		}
		err = up(ctx, cfg.ConnConfig, schema)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("migrate schema %s: %w", schema, err)
	}
	if err := grant(ctx, db, schema); err != nil {
		return err
	}
	logger.Info("schema is current", "schema", schema, "version", schemaVersion)
	return nil
}

// migrationLock is the key of an advisory lock of the database that everything
// that creates holds: schemas, migrations, rights.
const migrationLock = 0x7461_6773_7472

func lock(ctx context.Context, db *sql.DB) (unlock func(), err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to migrate: %w", err)
	}
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		conn.Close()
		return nil, fmt.Errorf("take the lock of migrations: %w", err)
	}
	// The lock is the session's and ends with it.
	return func() {
		_ = conn.Raw(func(c any) error { return c.(*stdlib.Conn).Conn().Close(context.WithoutCancel(ctx)) })
		conn.Close()
	}, nil
}

// up runs what is missing. It has a connection of its own: one on which a
// migration failed stays in that one's transaction and is good for nothing. The
// library knows no context: where ctx ends, the connection is cut, which the server
// looks for while it works.
func up(ctx context.Context, conn *pgx.ConnConfig, schema string) error {
	conn = conn.Copy()
	conn.RuntimeParams["client_connection_check_interval"] = millis(cutSeenWithin)
	dial := conn.DialFunc
	conn.DialFunc = func(dialing context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(dialing, network, addr)
		if err == nil {
			context.AfterFunc(ctx, func() { c.Close() })
		}
		return c, err
	}
	db := stdlib.OpenDB(*conn)
	defer db.Close()
	drv, err := migratepgx.WithInstance(db, &migratepgx.Config{
		MigrationsTable:  migrationsTable,
		SchemaName:       schema,
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
	case version > schemaVersion && dirty:
		return fmt.Errorf("a newer program's migration %d is unfinished; run that program's", version)
	case version > schemaVersion:
		// A newer program migrated already. It left the schema usable for this
		// one, see docs/operations.md on upgrades.
		return nil
	case dirty:
		// The run before was killed inside migration number version. Each one
		// is a transaction whose statements can run twice, so whether it took
		// effect does not matter: do it again.
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
	return isCode(err, "55P03")
}

// EnsureMigrated migrates where the schema is not current, if o's role may. It
// returns ErrNotMigrated where it may not.
func EnsureMigrated(ctx context.Context, o Options, logger *slog.Logger) error {
	current, err := IsMigrated(ctx, o)
	if err != nil || current {
		return err
	}
	err = Migrate(ctx, o, logger)
	if isCode(err, "42501") { // insufficient privilege
		return fmt.Errorf("%w: %w", ErrNotMigrated, err)
	}
	return err
}

// IsMigrated reports whether the schema is there and knows what this program does.
func IsMigrated(ctx context.Context, o Options) (bool, error) {
	var version int
	var dirty bool
	err := NewOwner(o).do(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT version, dirty FROM "+migrationsTable).Scan(&version, &dirty)
	})
	if err = notMigrated(err); errors.Is(err, ErrNotMigrated) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the schema's version: %w", err)
	}
	return version >= schemaVersion && !dirty, nil
}
