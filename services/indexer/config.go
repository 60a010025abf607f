package indexer

import (
	"errors"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/store"
)

// Config is what an operator chooses about the indexer.
type Config struct {
	// Database is where the index lives, with a role that may change rows.
	Database store.Options
	// BatchSize is the most messages of one transaction; 0 means 1000.
	BatchSize int
	// BatchWait is how long a batch waits for more messages after its first;
	// 0 means 20 ms.
	BatchWait time.Duration
	// BigAccount is from how many posts on an account is hidden, shown or erased
	// in pieces, between batches; 0 means 2000.
	BigAccount int
	// MarkerAge is how long markers of removed posts are kept, by upstream time;
	// 0 means 30 days.
	MarkerAge time.Duration
}

const (
	defaultBatchSize = 1000
	maxBatchSize     = 10_000
	defaultBatchWait = 20 * time.Millisecond
	defaultMarkerAge = 30 * 24 * time.Hour
	// MinMarkerAge is the least MarkerAge. It must be longer than anything that
	// comes again reaches back (package prune says what that is): a minute.
	MinMarkerAge = 24 * time.Hour
)

// Validate checks the config and fills in what was left at zero.
func (c *Config) Validate() error {
	if c.Database.URL == "" {
		return errors.New("the database URL is missing")
	}
	if err := c.Database.Check(); err != nil {
		return err
	}
	if c.BatchSize == 0 {
		c.BatchSize = defaultBatchSize
	}
	if c.BatchSize < 1 || c.BatchSize > maxBatchSize {
		return fmt.Errorf("a batch size of %d is not from 1 to %d", c.BatchSize, maxBatchSize)
	}
	if c.BatchWait == 0 {
		c.BatchWait = defaultBatchWait
	}
	if c.MarkerAge == 0 {
		c.MarkerAge = defaultMarkerAge
	}
	if c.MarkerAge < MinMarkerAge {
		return fmt.Errorf("a marker age of %s is less than %s", c.MarkerAge, MinMarkerAge)
	}
	return nil
}
