package store

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// Errors of connecting.
var (
	// ErrNotMigrated is returned if the schema is missing or older than this program: run "indexer
	// migrate" with an owner role.
	ErrNotMigrated = pg.ErrNotMigrated
	// ErrUnfit is returned if the database cannot hold the index: it is too old, or not encoded in
	// UTF8. Nothing is read from it or written to it.
	ErrUnfit = pg.ErrUnfit
	// ErrReadOnly is returned if a server that accepts writes is needed and the address leads to
	// another one, usually a standby. The address may soon lead to the primary.
	ErrReadOnly = pg.ErrReadOnly
)

// TooSlow reports whether work was abandoned because it took too long: its context or the
// statement's time-out ended it.
func TooSlow(err error) bool {
	// 57014 query canceled.
	return pg.IsCode(err, "57014") || errors.Is(err, context.DeadlineExceeded)
}

// Unavailable reports whether the database is at fault, not the query: the same query may succeed
// later.
func Unavailable(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.Is(err, ErrNotMigrated), errors.Is(err, pg.ErrSwitched), errors.Is(err, ErrUnfit), errors.Is(err, pg.ErrOtherEnd), errors.As(err, &connect), pgconn.SafeToRetry(err), errors.As(err, &network):
		return true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return true
	}
	// Connection failure, a transaction that was idle for too long (this process or its machine was
	// frozen), rollback (also by a standby that catches up), no resources, not in a state to
	// answer, operator intervention, system error.
	return pg.IsCode(err, "08", "25P03", "40", "53", "55", "57", "58")
}
