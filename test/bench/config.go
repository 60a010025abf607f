package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Limits that the project has set itself; the report says whether they are met.
const (
	// FreshnessLimit bounds the 99th percentile from arrival to answer.
	FreshnessLimit = 500 * time.Millisecond
	// MemoryLimit bounds the peak resident size of ingest and of the api, in bytes.
	MemoryLimit = 100 << 20
)

// Config says how much is measured, and so how long a run takes.
type Config struct {
	// Histories are the sizes of the backlogs, in tagged posts, rising. Memory is measured at each; everything else at the
	// last.
	Histories []int
	// Rate is how many tagged posts a second are written while freshness is measured, on average, and For how long that
	// continues.
	Rate float64
	For  time.Duration
	// Load is how long the api is asked by many clients at once before its memory is read.
	Load time.Duration
	// Pages is how long each kind of page is asked for.
	Pages time.Duration
	// Depth is how many posts lie before a deep page, where the list is that long.
	Depth int
	// Seed fixes what is posted.
	Seed uint64
	// Dir is where data is kept while the run lasts; a folder is made in it and removed. Empty means the system's.
	Dir string
	// Progress gets a line for each step.
	Progress io.Writer
}

// Default is the full run: less than four minutes on two cores that have nothing else to do.
func Default() Config {
	return Config{Histories: []int{50_000, 200_000}, Rate: 100, For: time.Minute, Load: 5 * time.Second, Pages: 6 * time.Second,
		Depth: 40_000, Seed: 1, Progress: io.Discard}
}

// Short is a run that shows that everything still works; its figures mean little.
func Short() Config {
	return Config{Histories: []int{1_000, 4_000}, Rate: 100, For: 2 * time.Second, Load: 500 * time.Millisecond, Pages: 500 * time.Millisecond,
		Depth: 500, Seed: 1, Progress: io.Discard}
}

func (c Config) validate() error {
	switch {
	case len(c.Histories) == 0 || c.Histories[0] < minHistory:
		return fmt.Errorf("histories are %v, must be at least one, of at least %d posts", c.Histories, minHistory)
	case !slices.IsSorted(c.Histories):
		return fmt.Errorf("histories are %v, must rise", c.Histories)
	case c.Rate <= 0 || c.For <= 0 || c.Load <= 0 || c.Pages <= 0:
		return errors.New("rate and durations must be positive")
	case c.Depth < 1:
		return fmt.Errorf("depth is %d, must be at least 1", c.Depth)
	}
	return nil
}

// minHistory leaves the commonest tags a few pages.
const minHistory = 500
