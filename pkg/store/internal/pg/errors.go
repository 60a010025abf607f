package pg

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrNotMigrated, ErrUnfit and ErrReadOnly are documented in pkg/store.
	ErrNotMigrated = errors.New("the database has no current schema; run \"indexer migrate\" with the owner's role")
	ErrUnfit       = errors.New("the database cannot hold the index")
	ErrReadOnly    = errors.New("the server takes no writes: it is a standby, or was made read-only")
)

// ErrPooled is returned if a connection must be direct but leads through a pooler.
var ErrPooled = errors.New("the address leads to a connection pooler such as PgBouncer, and this command needs its own session: connect directly to Postgres")

// ErrOtherEnd is returned if a pool's new connection has another kind of end than those before:
// later connections are made for the new kind.
var ErrOtherEnd = errors.New("the database's address now leads to a pooler, or no longer does; checking again")

// ErrSwitched is returned if a rebuilt schema replaced the former one after the connection was
// made. The names in a statement are looked up one after another when it is planned, so a cached
// plan may mix both schemas.
var ErrSwitched = errors.New("the index was switched during the query")

// NotMigrated converts the errors of a missing schema to one that says what to do.
func NotMigrated(err error) error {
	// 3F000 no such schema, 42P01 no such table, 42703 no such column.
	if IsCode(err, "3F000", "42P01", "42703") || errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%w: %w", ErrNotMigrated, err)
	}
	return err
}

// IsCode reports whether err is a Postgres error of one of these classes (two characters) or codes
// (five).
func IsCode(err error, codes ...string) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if strings.HasPrefix(e.Code, c) {
			return true
		}
	}
	return false
}

// LockTimedOut reports whether a statement gave up waiting for a lock.
func LockTimedOut(err error) bool { return IsCode(err, "55P03") }
