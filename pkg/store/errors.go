package store

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// The errors of connecting.
var (
	// ErrNotMigrated is returned when the schema is missing or older than this
	// program: run "indexer migrate" with an owner role.
	ErrNotMigrated = pg.ErrNotMigrated
	// ErrUnfit is returned where the database cannot hold the index: it is too old, or
	// not encoded in UTF8. Nothing is read from it or written to it.
	ErrUnfit = pg.ErrUnfit
	// ErrReadOnly is returned where a server that takes writes is needed and the
	// address leads to none: a standby, as a rule. It may lead to another one soon.
	ErrReadOnly = pg.ErrReadOnly
)

// TooSlow reports whether the work was given up because it took too long: its
// context or the statement's time-out ended it.
func TooSlow(err error) bool {
	// 57014 query canceled.
	return pg.IsCode(err, "57014") || errors.Is(err, context.DeadlineExceeded)
}

// Unavailable reports whether the database, not the question, is the trouble:
// it may answer the same later.
func Unavailable(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.Is(err, ErrNotMigrated), errors.Is(err, pg.ErrSwitched), errors.Is(err, ErrUnfit), errors.Is(err, pg.ErrOtherEnd), errors.As(err, &connect), pgconn.SafeToRetry(err), errors.As(err, &network):
		return true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return true
	}
	// Connection, a transaction that stood still for too long (this process did,
	// or its machine), rolled back (also by a standby that catches up), no
	// resources, not in a state to answer, operator intervention, system.
	return pg.IsCode(err, "08", "25P03", "40", "53", "55", "57", "58")
}
