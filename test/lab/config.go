package lab

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"
)

const (
	// page is the size of every page of posts, the API's own default.
	page = 50
	// tagPage is the size of a page of tags.
	tagPage = 100
	// MinPosts leaves every list of the lab a few pages.
	MinPosts = 10_000
)

// LatencyLimit bounds the latency of the deepest page over the first page's.
const LatencyLimit = 1.2

// WorkLimit bounds the work for all of two tags over that of the better simple way.
const WorkLimit = 2.0

// Config says how much is measured, and so how long a run takes.
type Config struct {
	// Posts is how many posts the index gets, at least MinPosts.
	Posts int
	// Ties is how many tags have one post each: the tie inside which tags are listed.
	Ties int
	// Drift is how many posts the list has that changes under its readers.
	Drift int
	// Walk is how many pages are read where a list is read page by page.
	Walk int
	// Depths are the pages that are asked for of each list, rising; of one that is not so long, the deepest.
	Depths []int
	// Repeat is how often each page is timed, and Budget how long one way of asking may take for all its pages
	// together; each page is timed three times at least.
	Repeat int
	Budget time.Duration
	// Seed fixes what is posted and how it changes.
	Seed uint64
	// Dir is where data is kept while the run lasts; a folder is made in it and removed. Empty means the system's.
	Dir string
	// Bar is where progress is shown.
	Bar *os.File
	// Logger gets a line for each step.
	Logger *slog.Logger
}

// Default is the full run.
func Default() Config {
	return Config{Posts: 1_000_000, Ties: 12_000, Drift: 10_000, Walk: 200, Depths: []int{1, 2, 10, 100, 1_000, 10_000}, Repeat: 101, Budget: 4 * time.Second, Seed: 1,
		Bar: os.Stderr, Logger: slog.New(slog.DiscardHandler)}
}

// Short is a run of seconds, for tests.
func Short() Config {
	c := Default()
	c.Posts, c.Ties, c.Drift, c.Walk, c.Repeat, c.Budget = 20_000, 2_000, 1_000, 40, 3, time.Millisecond
	c.Depths = []int{1, 2, 10_000}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Posts < MinPosts:
		return fmt.Errorf("posts is %d, must be at least %d", c.Posts, MinPosts)
	case c.Ties < 10*tagPage || c.Ties > c.Posts:
		return fmt.Errorf("ties is %d, must be within %d and the number of posts", c.Ties, 10*tagPage)
	case c.Drift < 10*page || c.Drift > c.Posts/4:
		return fmt.Errorf("drift is %d, must be within %d and a quarter of the posts", c.Drift, 10*page)
	case c.Walk < 2:
		return fmt.Errorf("walk is %d, must be at least 2", c.Walk)
	case len(c.Depths) == 0 || c.Depths[0] != 1 || !slices.IsSorted(c.Depths):
		return fmt.Errorf("depths are %v, must rise from 1", c.Depths)
	case c.Repeat < 1 || c.Budget <= 0:
		return fmt.Errorf("repeat is %d and budget %s, must be positive", c.Repeat, c.Budget)
	}
	return nil
}
