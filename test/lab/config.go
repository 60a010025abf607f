package lab

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"
)

const (
	// page is the size of all pages of posts, the API's default.
	page = 50
	// tagPage is the size of a page of tags.
	tagPage = 100
	// MinPosts leaves a few pages for every list of the lab.
	MinPosts = 10_000
)

// LatencyLimit bounds the latency of the deepest page relative to the first one.
const LatencyLimit = 1.2

// WorkLimit bounds the work for all of two tags relative to the better simple way.
const WorkLimit = 2.0

// Config says how much is measured, which determines the time of a run.
type Config struct {
	// Posts is the number of posts in the index, at least MinPosts.
	Posts int
	// Ties is the number of tags with one post: the tie inside which tags are listed.
	Ties int
	// Drift is the number of posts in the list that changes under its readers.
	Drift int
	// Walk is the number of pages to read when a list is read page by page.
	Walk int
	// Depths are the page numbers measured for each list, ascending; for a shorter list, its last
	// page.
	Depths []int
	// Repeat is how often each page is timed, and Budget bounds the time of one way for all its
	// pages together; each page is timed at least three times.
	Repeat int
	Budget time.Duration
	// Seed determines the posts and their changes.
	Seed uint64
	// Dir holds the folder with the data of the run, which is removed afterwards. Empty means the
	// system's temporary folder.
	Dir string
	// Bar receives the progress bar.
	Bar *os.File
	// Logger receives a line for each step.
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
