package store

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrLeaseLost is returned by Writer.Apply when another holder has the
	// lease, or the schema was switched under it. Nothing was changed. Acquire
	// again and go on from the checkpoint that Acquire returns.
	ErrLeaseLost = errors.New("the indexer's lease was lost")
	// ErrLeaseHeld is returned by Writer.Acquire while another holder's lease
	// lasts. Try again.
	ErrLeaseHeld = errors.New("the indexer's lease is held by another")
	// ErrOutdated is returned by Writer.Acquire when a newer program's migration
	// needs rows that this program does not write. Run the newer program.
	ErrOutdated = errors.New("this program is too old to write the index")
	// ErrNotMigrated is returned when the schema is missing or older than this
	// program: run "indexer migrate" with an owner role.
	ErrNotMigrated = errors.New("the database has no current schema; run \"indexer migrate\" with the owner's role")
	// ErrUnfit is returned where the database cannot hold the index: it is too old, or
	// not encoded in UTF8. Nothing is read from it or written to it.
	ErrUnfit = errors.New("the database cannot hold the index")
	// ErrReadOnly is returned where a server that takes writes is needed and the
	// address leads to none: a standby, as a rule. It may lead to another one soon.
	ErrReadOnly = errors.New("the server takes no writes: it is a standby, or was made read-only")
)

// Rejected reports whether Postgres refused the data itself: trying the same
// again cannot help. Everything else (no connection, no room, a lock, a
// restart) may pass.
func Rejected(err error) bool {
	// 22 data exception, 54 program limit exceeded. Not 23: a constraint that is
	// violated is our own mistake, and must not bury good messages.
	return isCode(err, "22", "54") || errors.Is(err, errCrowded)
}

// TooSlow reports whether the work was given up because it took too long: its
// context or the statement's time-out ended it.
func TooSlow(err error) bool {
	// 57014 query canceled.
	return isCode(err, "57014") || errors.Is(err, context.DeadlineExceeded)
}

// Unavailable reports whether the database, not the question, is the trouble:
// it may answer the same later.
func Unavailable(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.Is(err, ErrNotMigrated), errors.Is(err, errSwitched), errors.Is(err, ErrUnfit), errors.Is(err, errOtherEnd), errors.As(err, &connect), pgconn.SafeToRetry(err), errors.As(err, &network):
		return true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return true
	}
	// Connection, a transaction that stood still for too long (this process did,
	// or its machine), rolled back (also by a standby that catches up), no
	// resources, not in a state to answer, operator intervention, system.
	return isCode(err, "08", "25P03", "40", "53", "55", "57", "58")
}

func asPgError(err error, pg **pgconn.PgError) bool { return errors.As(err, pg) }
