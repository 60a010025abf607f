package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tagstream/tagstream/test/lab"
)

// The parts of a run, in order. Each except growth needs the results of the previous ones, which are
// produced without measuring if they are not requested.
const (
	PartIngest    = "ingest"
	PartIndexer   = "indexer"
	PartSize      = "size"
	PartAPI       = "api"
	PartRebuild   = "rebuild"
	PartFreshness = "freshness"
	PartGrowth    = "growth"
)

// Parts lists them in order.
var Parts = []string{PartIngest, PartIndexer, PartSize, PartAPI, PartRebuild, PartFreshness, PartGrowth}

// Config says how much is measured, which determines the time of a run.
type Config struct {
	// Parts are the parts to measure.
	Parts []string
	// Events is the number of events in the archive.
	Events int
	// Rounds is how often each figure and its peer are measured in turn, Turn the duration of one
	// measurement of pages.
	Rounds int
	Turn   time.Duration
	// Clients are the numbers of concurrent clients, with one figure each.
	Clients []int
	// Depth is the number of posts before a deep page, if the list is that long.
	Depth int
	// Growth are the numbers of posts of the indexes whose pages are compared, ascending.
	Growth []int
	// Rates are the rates at which freshness is measured, in posts per second, each for the time
	// For.
	Rates []float64
	For   time.Duration
	// Seed determines the posts.
	Seed uint64
	// Dir holds the folder with the data of the run, which is removed afterwards. Empty means the
	// system's temporary folder.
	Dir string
	// Progress receives a line for each step.
	Progress io.Writer
}

// Default is the full run: less than fifteen minutes on two idle cores, of which growth takes five.
func Default() Config {
	return Config{Parts: Parts, Events: 600_000, Rounds: 3, Turn: 2 * time.Second, Clients: []int{1, 2, 8, 64}, Depth: 25_000,
		Growth: []int{300_000, 1_000_000, 3_000_000}, Rates: []float64{10, 100, 1000}, For: 20 * time.Second, Seed: 1, Progress: io.Discard}
}

// Quick takes less than two minutes, for a first look at a change.
func Quick() Config {
	c := Default()
	c.Events, c.Rounds, c.Turn, c.Clients, c.Growth, c.Rates, c.For = 200_000, 1, time.Second, []int{8}, []int{30_000, 100_000}, []float64{100}, 10*time.Second
	return c
}

// Short only shows that everything works; its figures mean little.
func Short() Config {
	c := Quick()
	c.Events, c.Turn, c.Clients, c.Depth, c.Growth, c.For = 10_000, 300*time.Millisecond, []int{2}, 100, []int{10_000, 20_000}, 2*time.Second
	return c
}

// minEvents leaves a few pages for the most frequent tags.
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
	case len(c.Growth) < 2 || !slices.IsSorted(c.Growth) || c.Growth[0] < lab.MinPosts:
		return fmt.Errorf("growth is %v, must rise from at least %d", c.Growth, lab.MinPosts)
	}
	return nil
}

func (c Config) has(part string) bool { return slices.Contains(c.Parts, part) }
