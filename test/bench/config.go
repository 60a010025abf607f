package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// The parts of a run, in the order in which they run. Each needs what those before it leave, which
// is made without measuring where they are not asked for.
const (
	PartIngest    = "ingest"
	PartIndexer   = "indexer"
	PartSize      = "size"
	PartAPI       = "api"
	PartRebuild   = "rebuild"
	PartFreshness = "freshness"
)

// Parts lists them.
var Parts = []string{PartIngest, PartIndexer, PartSize, PartAPI, PartRebuild, PartFreshness}

// Config says how much is measured, and so how long a run takes.
type Config struct {
	// Parts are what is measured.
	Parts []string
	// Events are how many the archive has.
	Events int
	// Rounds is how often each figure and its peer take their turns, Turn how long one of pages lasts.
	Rounds int
	Turn   time.Duration
	// Clients are how many ask for pages at once, one figure each.
	Clients []int
	// Depth is how many posts lie before a deep page, where the list is that long.
	Depth int
	// Rates are how many posts a second freshness is measured at, each for the time For.
	Rates []float64
	For   time.Duration
	// Seed fixes what is posted.
	Seed uint64
	// Dir is where data is kept while the run lasts; a folder is made in it and removed. Empty
	// means the system's.
	Dir string
	// Progress gets a line for each step.
	Progress io.Writer
}

// Default is the full run: less than ten minutes on two cores that have nothing else to do.
func Default() Config {
	return Config{Parts: Parts, Events: 600_000, Rounds: 3, Turn: 2 * time.Second, Clients: []int{1, 2, 8, 64}, Depth: 25_000,
		Rates: []float64{10, 100, 1000}, For: 20 * time.Second, Seed: 1, Progress: io.Discard}
}

// Quick takes less than two minutes; it is good for a first look at a change.
func Quick() Config {
	c := Default()
	c.Events, c.Rounds, c.Turn, c.Clients, c.Rates, c.For = 200_000, 1, time.Second, []int{8}, []float64{100}, 10*time.Second
	return c
}

// Short is a run that shows that everything still works; its figures mean little.
func Short() Config {
	c := Quick()
	c.Events, c.Turn, c.Clients, c.Depth, c.For = 10_000, 300*time.Millisecond, []int{2}, 100, 2*time.Second
	return c
}

// minEvents leaves the commonest tags a few pages.
const minEvents = 5000

func (c Config) validate() error {
	for _, p := range c.Parts {
		if !slices.Contains(Parts, p) {
			return fmt.Errorf("no part is called %q; there are %v", p, Parts)
		}
	}
	switch {
	case len(c.Parts) == 0 || len(c.Clients) == 0 || len(c.Rates) == 0:
		return errors.New("parts, clients and rates must not be empty")
	case c.Events < minEvents:
		return fmt.Errorf("events are %d, must be at least %d", c.Events, minEvents)
	case c.Rounds < 1 || c.Turn <= 0 || c.For <= 0 || c.Depth < 1:
		return errors.New("rounds, durations and depth must be positive")
	}
	return nil
}

func (c Config) has(part string) bool { return slices.Contains(c.Parts, part) }
