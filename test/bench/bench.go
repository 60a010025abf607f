package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/report"
	"github.com/tagstream/tagstream/test/simnet"
	"github.com/tagstream/tagstream/test/site"
)

// Report is what a run found.
type Report struct {
	Config    Config
	Machine   report.Machine
	Took      time.Duration
	Freshness Freshness
	Memory    []Memory // one for each history
	Replay    Pace     // these at the last history
	Fold      Pace
	Rebuild   Pace
	Pages     []PageRate
	Cost      Cost
}

// Memory is the peak resident size of the services after one history, in bytes.
type Memory struct {
	Posts int
	// Ingest and Indexer are read when the history was replayed and indexed, API after many clients got Answers answers,
	// and all of them at the end once more, so that the last history's include what else was measured.
	Ingest, Indexer, API int64
	Answers              int
}

// runner is one run.
type runner struct {
	cfg    Config
	dir    string
	tools  tools
	report Report
}

// Run measures. It keeps its data in a folder of its own, which is removed, and stops every process that it starts.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	began := time.Now()
	r := &runner{cfg: cfg, report: Report{Config: cfg}}
	if r.dir, err = os.MkdirTemp(cfg.Dir, "tagstream-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	for i, posts := range cfg.Histories {
		if err := r.measure(ctx, posts, i == len(cfg.Histories)-1); err != nil {
			return nil, fmt.Errorf("history of %d posts: %w", posts, err)
		}
	}
	r.report.Machine.LoadPast = report.LoadAverage()
	r.report.Took = time.Since(began)
	return &r.report, nil
}

func (r *runner) say(format string, args ...any) {
	fmt.Fprintf(r.cfg.Progress, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// prepare builds and finds what every site needs.
func (r *runner) prepare(ctx context.Context) (err error) {
	if r.report.Machine, err = report.Inspect(ctx, r.dir); err != nil {
		return err
	}
	r.report.Machine.NATS = server.VERSION
	r.say("building the services and the Jetstream server")
	r.tools.bin = filepath.Join(r.dir, "bin")
	if err := process.Build(ctx, r.tools.bin, process.Ingest, process.Indexer, process.API); err != nil {
		return err
	}
	if r.tools.jetstream, err = simnet.BuildJetstream(ctx, ""); err != nil {
		return err
	}
	if r.tools.postgres, err = site.FindPostgres(ctx, r.dir); err != nil {
		return err
	}
	r.tools.author, err = newAuthor(ctx, r.cfg.Seed)
	return err
}

// measure runs one installation. The last one is measured in every way.
func (r *runner) measure(ctx context.Context, posts int, last bool) (err error) {
	r.say("%d posts: writing the history and starting the servers", posts)
	dir := filepath.Join(r.dir, fmt.Sprint("site-", posts))
	s, err := openSite(ctx, r.tools, dir, r.cfg.Seed, posts)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.close(ctx), os.RemoveAll(dir))
	}()
	if err := s.inspectPostgres(ctx, &r.report.Machine); err != nil {
		return err
	}
	if r.report.Replay, err = s.replay(ctx); err != nil {
		return err
	}
	r.say("%d posts: replayed into the stream at %.0f/s", posts, r.report.Replay.PerSecond)
	if r.report.Fold, err = s.fold(ctx); err != nil {
		return err
	}
	r.say("%d posts: indexed at %.0f/s", posts, r.report.Fold.PerSecond)
	if r.report.Cost, err = s.cost(ctx); err != nil {
		return err
	}
	if err := s.startAPI(ctx); err != nil {
		return err
	}
	memory := Memory{Posts: posts}
	if memory.Answers, err = s.load(ctx, r.cfg); err != nil {
		return err
	}
	if last {
		if err := r.measureLast(ctx, s); err != nil {
			return err
		}
	}
	if err := s.readMemory(&memory); err != nil {
		return err
	}
	r.report.Memory = append(r.report.Memory, memory)
	r.say("%d posts: peak memory of ingest %s, indexer %s, api %s", posts, mib(memory.Ingest), mib(memory.Indexer), mib(memory.API))
	return nil
}

// measureLast measures what is measured at one history only.
func (r *runner) measureLast(ctx context.Context, s *installation) (err error) {
	// Pages come first, while all posts lie on disk in the order of the archive, the first page's too.
	if r.report.Pages, err = s.pages(ctx, r.cfg); err != nil {
		return err
	}
	for _, p := range r.report.Pages {
		r.say("page behind %d posts, %d tags: %.0f/s", p.Depth, p.Tags, p.PerSecond())
	}
	r.say("timing %g posts a second for %s", r.cfg.Rate, r.cfg.For)
	if r.report.Freshness, err = s.freshness(ctx, r.cfg, r.tools.author); err != nil {
		return err
	}
	f := r.report.Freshness.Shown
	r.say("arrival to answer: p50 %s, p99 %s, max %s", ms(f.P50), ms(f.P99), ms(f.Max))
	r.say("rebuilding the index")
	if r.report.Rebuild, err = s.rebuild(ctx); err != nil {
		return err
	}
	r.say("rebuilt at %.0f/s", r.report.Rebuild.PerSecond)
	return nil
}

func (s *installation) readMemory(m *Memory) error {
	for _, of := range []struct {
		program *process.Program
		peak    *int64
	}{{s.ingest, &m.Ingest}, {s.indexer, &m.Indexer}, {s.api, &m.API}} {
		if err := of.program.Alive(); err != nil {
			return err
		}
		var err error
		if *of.peak, err = of.program.PeakMemory(); err != nil {
			return err
		}
	}
	return nil
}
