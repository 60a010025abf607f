package indexer

import (
	"errors"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
)

// Config is an operator's configuration of the indexer.
type Config struct {
	// Database is where the index lives, with a role that may change rows.
	Database store.Options
	// BatchSize is the most messages of one transaction; 0 means
	// stream.ReadAhead.
	BatchSize int
	// BatchWait is how long a batch waits after its first message for more that are known to
	// follow; 0 means 100 ms.
	BatchWait time.Duration
	// BigAccount is the number of posts from which an account is hidden, shown or erased in pieces,
	// between batches; 0 means 2000.
	BigAccount int
	// MarkerAge is how long markers of removed posts are kept, by upstream time;
	// 0 means 30 days.
	MarkerAge time.Duration
	// ChangesAge is how far back the change feed reaches; 0 means 7 days.
	ChangesAge time.Duration
	// ShowOptedOut shows accounts that have opted out of being shown to readers who are not logged
	// in.
	ShowOptedOut bool
	// DenyFile names accounts and tags that are not shown; "" means none. It is reloaded when it
	// changes.
	DenyFile string
	// EraseWithin is the time from the removal of a post or account until its payloads are erased
	// from the stream; 0 means 7 days, EraseNever never.
	EraseWithin time.Duration
}

// EraseNever keeps the payloads of removed posts in the stream.
const EraseNever time.Duration = service.Off

const (
	defaultBatchSize = stream.ReadAhead
	maxBatchSize     = 10_000
	defaultBatchWait = 100 * time.Millisecond
	defaultMarkerAge = 30 * 24 * time.Hour
	// MinMarkerAge is the least MarkerAge. It must exceed the age of any repeated event; package
	// prune lists the sources of those.
	MinMarkerAge = 24 * time.Hour

	defaultChangesAge = 7 * 24 * time.Hour
	// MinChangesAge is the least ChangesAge: a follower may be restarted.
	MinChangesAge = time.Hour

	defaultEraseWithin = 7 * 24 * time.Hour
	// MinEraseWithin is the least EraseWithin: a pass over the stream takes time.
	MinEraseWithin = 24 * time.Hour
)

// CheckErasure checks the setting of EraseWithin. The error is a *service.ConfigError.
func CheckErasure(e service.Erasure) error {
	if e.Within != EraseNever && e.Within < MinEraseWithin {
		return service.Bad("ERASE_WITHIN", fmt.Errorf("%s is less than %s", e.Within, MinEraseWithin))
	}
	return nil
}

// CheckChanges checks the setting of ChangesAge. The error is a *service.ConfigError.
func CheckChanges(c service.Changes) error {
	if c.Age < MinChangesAge {
		return service.Bad("CHANGES_AGE", fmt.Errorf("%s is less than %s", c.Age, MinChangesAge))
	}
	return nil
}

// Validate checks the config and fills in defaults.
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
	if c.ChangesAge == 0 {
		c.ChangesAge = defaultChangesAge
	}
	if c.ChangesAge < MinChangesAge {
		return fmt.Errorf("a change feed of %s is less than %s", c.ChangesAge, MinChangesAge)
	}
	if c.EraseWithin == 0 {
		c.EraseWithin = defaultEraseWithin
	}
	if c.EraseWithin != EraseNever && c.EraseWithin < MinEraseWithin {
		return fmt.Errorf("erasing within %s is less than %s", c.EraseWithin, MinEraseWithin)
	}
	return nil
}
