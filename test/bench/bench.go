package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"

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
	if err := r.sql(ctx, func(conn *pgx.Conn) error { return r.report.Machine.InspectPostgres(ctx, conn) }); err != nil {
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
