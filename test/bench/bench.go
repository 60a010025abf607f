package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/tagstream/tagstream/test/lab"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/report"
)

// Report has the results of a run.
type Report struct {
	Config  Config
	Machine report.Machine
	Took    time.Duration
	Figures []Figure
	Work    []Work
	// Peaks is the peak resident memory of each process, in bytes, by name.
	Peaks  map[string]int64
	Growth []Grown
	Size   *Size // nil if the part was not requested
	// Notes explain figures.
	Notes []string
}

// runner is one run.
type runner struct {
	cfg    Config
	author *author
	*installation
	report Report
}

// Run measures. It keeps its data in its own folder, which it removes, and stops every process that
// it starts.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	began := time.Now()
	r := &runner{cfg: cfg, report: Report{Config: cfg, Peaks: map[string]int64{}}}
	dir, err := os.MkdirTemp(cfg.Dir, "tagstream-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if r.report.Machine, err = report.Inspect(ctx, dir); err != nil {
		return nil, err
	}
	r.report.Machine.NATS = server.VERSION
	r.say("building the programs, starting the servers, writing %s events", report.Count(cfg.Events))
	if r.author, err = newAuthor(ctx, cfg.Seed); err != nil {
		return nil, err
	}
	if r.installation, err = openSite(ctx, cfg, dir, r.author); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	if err := r.pg.Do(ctx, func(conn *pgx.Conn) error { return r.report.Machine.InspectPostgres(ctx, conn) }); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
		// needed is run instead of a part that was not requested but that a later one needs.
		needed func(context.Context) error
	}{
		{PartIngest, r.measureIngest, r.fillStream},
		{PartIndexer, r.measureIndexer, r.fillIndex},
		{PartSize, r.measureSize, nil},
		{PartAPI, r.measureAPI, nil},
		{PartRebuild, r.measureRebuild, nil},
		{PartFreshness, r.measureFreshness, nil},
		{PartGrowth, r.measureGrowth, nil},
	} {
		run := part.needed
		if cfg.has(part.name) {
			r.say("part %s", part.name)
			run = part.run
		}
		if run == nil || !cfg.has(part.name) && !r.needs(part.name) {
			continue
		}
		if err := run(ctx); err != nil {
			return nil, fmt.Errorf("part %s: %w", part.name, err)
		}
	}
	r.peaks()
	r.report.Machine.LoadPast = report.LoadAverage()
	r.report.Took = time.Since(began)
	return &r.report, nil
}

// needs reports whether a part was requested, or a later one that needs it.
func (r *runner) needs(part string) bool {
	behind := false
	for _, p := range Parts {
		behind = behind || p == part
		if behind && p != PartGrowth && r.cfg.has(p) {
			return true
		}
	}
	return false
}

func (r *runner) say(format string, args ...any) {
	fmt.Fprintf(r.cfg.Progress, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// Bars of peak memory, in bytes: of each service, and of the all-in-one program.
const memoryBar, standaloneBar = 90 << 20, 200 << 20

// peak records a process's peak memory.
func (r *runner) peak(programs ...*process.Program) {
	for _, p := range programs {
		if _, ended := p.Ended(); ended {
			continue
		}
		if peak, err := p.PeakMemory(); err == nil {
			r.report.Peaks[p.Name] = max(r.report.Peaks[p.Name], peak)
		}
	}
}

// peaks reports the services' memory as figures.
func (r *runner) peaks() {
	for _, p := range []*process.Program{r.ingest, r.indexer, r.api} {
		if p != nil {
			r.peak(p)
			r.figure(Figure{Name: "peak memory of " + p.Name, Unit: "MiB", Ours: []float64{float64(r.report.Peaks[p.Name]) / (1 << 20)}, Bar: memoryBar >> 20, AtMost: true})
		}
	}
}

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
