// Package site starts the servers of an installation for the benchmarks and the lab. Tests use
// pkg/testkit instead. Package process runs the programs.
package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/pgserver"
	"github.com/tagstream/tagstream/pkg/store"
)

// The roles of a deployment.
const (
	OwnerRole   = "tagstream_owner"   // makes the schema
	IndexerRole = "tagstream_indexer" // changes rows
	APIRole     = "tagstream_api"     // selects
)

const pgStop = time.Minute

// FindPostgres finds server programs that can use the data in dir, if any.
func FindPostgres(ctx context.Context, dir string) (pgserver.Binaries, error) {
	return pgserver.Find(ctx, filepath.Join(dir, "postgres"))
}

// Postgres is a private server with the roles of a deployment and a migrated database.
type Postgres struct {
	*pgserver.Server
	// Extension reports that the requested extension is available.
	Extension bool
}

// StartPostgres starts a server in dir. It loads an extension, "" for none, if it is installed.
// Settings of the extension are used only with it.
func StartPostgres(ctx context.Context, binaries pgserver.Binaries, dir, extension string, settings map[string]string) (p *Postgres, err error) {
	quiet := slog.New(slog.DiscardHandler)
	cfg := pgserver.Config{
		Dir: filepath.Join(dir, "postgres"), Binaries: binaries, Database: "tagstream", Owner: OwnerRole,
		Roles: []string{OwnerRole, IndexerRole, APIRole}, TCPPort: pgserver.AnyPort, Settings: map[string]string{}, Logger: quiet,
	}
	p = &Postgres{}
	for name, value := range settings {
		cfg.Settings[name] = value
	}
	if p.Server, err = pgserver.Start(ctx, cfg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Stop(ctx))
		}
	}()
	if extension != "" {
		// A server does not start with a missing library: check first.
		err := p.Do(ctx, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)", extension).Scan(&p.Extension)
		})
		if err != nil {
			return p, fmt.Errorf("look for extension %s: %w", extension, err)
		}
	}
	if p.Extension {
		if err := p.Server.Stop(ctx); err != nil {
			return p, err
		}
		cfg.Settings["shared_preload_libraries"] = extension
		if p.Server, err = pgserver.Start(ctx, cfg); err != nil {
			return nil, err
		}
		err := p.Do(ctx, func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "CREATE EXTENSION "+extension)
			return err
		})
		if err != nil {
			return p, fmt.Errorf("create extension %s: %w", extension, err)
		}
	}
	if err := store.CreateRoles(ctx, store.Options{URL: p.URL(pgserver.Superuser)}, IndexerRole, APIRole); err != nil {
		return p, err
	}
	return p, store.Migrate(ctx, store.Options{URL: p.URL(OwnerRole)}, quiet)
}

// Do runs fn on a connection of the superuser.
func (p *Postgres) Do(ctx context.Context, fn func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, p.URL(pgserver.Superuser))
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return fn(conn)
}

// Exec runs statements as the superuser.
func (p *Postgres) Exec(ctx context.Context, sql string) error {
	return p.Do(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql)
		return err
	})
}

// Stop stops the server, even if ctx has ended.
func (p *Postgres) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pgStop)
	defer cancel()
	return p.Server.Stop(ctx)
}
