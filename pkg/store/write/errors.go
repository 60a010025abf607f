package write

import (
	"errors"

	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

var (
	// ErrLeaseLost is returned by Writer.Apply when another holder has the
	// lease, or the schema was switched under it. Nothing was changed. Acquire
	// again and continue from the checkpoint that Acquire returns.
	ErrLeaseLost = errors.New("the indexer's lease was lost")
	// ErrLeaseHeld is returned by Writer.Acquire while another holder's lease
	// lasts. Try again.
	ErrLeaseHeld = errors.New("the indexer's lease is held by another")
	// ErrOutdated is returned by Writer.Acquire when a newer program's migration
	// needs rows that this program does not write. Run the newer program.
	ErrOutdated = errors.New("this program is too old to write the index")
)

// Rejected reports whether Postgres refused the data itself: trying the same
// again cannot help. Everything else (no connection, no room, a lock, a
// restart) may pass.
func Rejected(err error) bool {
	// 22 data exception, 54 program limit exceeded. Not 23: a constraint that is
	// violated is our own mistake, and must not bury good messages.
	return pg.IsCode(err, "22", "54") || errors.Is(err, errCrowded)
}
