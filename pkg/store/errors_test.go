package store_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
)

// TestUnavailable distinguishes temporary failures from errors in a query.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	for code, passes := range map[string]bool{
		"08006": true,  // the connection failed
		"25P03": true,  // a transaction stood still too long: this process was frozen
		"25006": false, // a write in a read-only transaction
		"40001": true,  // rolled back, as by a standby that catches up
		"42601": false, // a syntax error
		"53300": true,  // too many connections
		"57P01": true,  // the server stops
	} {
		err := fmt.Errorf("query posts: %w", &pgconn.PgError{Code: code})
		require.Equal(t, passes, store.Unavailable(err), code)
		require.False(t, store.TooSlow(err), code)
	}
}
