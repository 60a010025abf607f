package store

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Migrations and SchemaVersion are for tests of migrating.
var Migrations = migrations

const SchemaVersion = schemaVersion

// SetSlice sets how long a snapshot of a verification lasts.
func (v *Verifier) SetSlice(d time.Duration) { v.slice = d }

// Asked runs a statement as a reader's questions are, and returns its first column.
func (r *Reader) Asked(ctx context.Context, sql string) (answer string, err error) {
	err = r.ask(ctx, sql, nil, func(rows pgx.Rows) error { return scanOne(rows, &answer) })
	return answer, err
}

// MigrationLock is the key of what Migrate holds.
const MigrationLock = migrationLock

// ErrPooled is returned by what needs a session of its own.
var ErrPooled = errPooled

// Where returns what a URL that is accepted leads to.
func Where(o Options) (maxConns int32, hosts, names []string, err error) {
	t, err := o.target(reading)
	if err != nil {
		return 0, nil, nil, err
	}
	c := t.cfg.ConnConfig
	hosts = []string{c.Host}
	for _, f := range c.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	return t.cfg.MaxConns, hosts, append(slices.Collect(maps.Keys(c.RuntimeParams)), c.Database), nil
}
