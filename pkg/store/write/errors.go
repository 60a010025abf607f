package write

import (
	"errors"

	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

var (
	// ErrLeaseLost is returned by Writer.Apply when another holder has the lease, or the schema was
	// switched. Nothing was changed. Call Acquire again and continue from the checkpoint that it
	// returns.
	ErrLeaseLost = errors.New("the indexer's lease was lost")
	// ErrLeaseHeld is returned by Writer.Acquire while another holder has the lease. Try again.
	ErrLeaseHeld = errors.New("the indexer's lease is held by another")
	// ErrOutdated is returned by Writer.Acquire when a newer program's migration
	// needs rows that this program does not write. Run the newer program.
	ErrOutdated = errors.New("this program is too old to write the index")
)

// Rejected reports whether Postgres refused the data itself: retrying cannot help. Everything else
// (no connection, no room, a lock, a restart) may be temporary.
func Rejected(err error) bool {
	// 22 data exception, 54 program limit exceeded. Not 23: a violated constraint is our own
	// mistake, and must not turn good messages into dead letters.
	return pg.IsCode(err, "22", "54") || errors.Is(err, errCrowded)
}
