package bench

import (
	"fmt"
	"io"
	"time"

	"github.com/tagstream/tagstream/test/report"
)

// Write writes the report as Markdown.
func (r *Report) Write(w io.Writer) error {
	p := report.NewPrinter(w)
	p.Text("# Benchmarks\n\nWritten by `make bench`; do not edit. `test/bench` says how each figure is obtained. These are from one run on one\n" +
		"machine, with everything on its loopback: the services, their servers, the simulated network and the clients that\n" +
		"measure share its cores. Absolute speeds are this machine's at that moment; ratios and limits are what to look at.\n")
	r.machine(p)
	r.limits(p)
	r.freshness(p)
	r.memory(p)
	r.throughput(p)
	r.pages(p)
	r.cost(p)
	return p.Err()
}

func (r *Report) machine(p *report.Printer) {
	m := r.Machine
	p.Table([]string{"of", "is"},
		[]string{"commit", m.Commit},
		[]string{"date, time taken", m.Date.Format("2006-01-02 15:04 UTC") + ", " + r.Took.Round(time.Second).String()},
		[]string{"processor", fmt.Sprintf("%s, %d cores", m.CPU, m.Cores)},
		[]string{"system", m.System},
		[]string{"load average before, after", m.LoadAt + " (1, 5, 15 min); " + m.LoadPast},
		[]string{"disk", fmt.Sprintf("a synced write of 4 kB takes %.2f ms (median)", report.Millis(m.Sync))},
		[]string{"Go", m.Go},
		[]string{"NATS", m.NATS + ", embedded, TCP, sync_interval always"},
		[]string{"Postgres", fmt.Sprintf("%s, %s", m.Postgres, m.Fsync)},
		[]string{"histories", report.Count(r.Config.Histories...) + " tagged posts, all of them in the archive before ingest starts"},
	)
}

func (r *Report) limits(p *report.Printer) {
	p.Text("\n## What is promised\n")
	rows := [][]string{{fmt.Sprintf("arrival to answer, 99th percentile at %g posts a second, below %s", r.Config.Rate, ms(FreshnessLimit)),
		ms(r.Freshness.Shown.P99), report.Verdict(r.Freshness.Shown.P99 < FreshnessLimit)}}
	for _, m := range r.Memory {
		for _, of := range []struct {
			name string
			peak int64
		}{{"ingest", m.Ingest}, {"api", m.API}} {
			rows = append(rows, []string{fmt.Sprintf("peak memory of %s after %s posts, below %s", of.name, report.Count(m.Posts), mib(MemoryLimit)),
				mib(of.peak), report.Verdict(of.peak < MemoryLimit)})
		}
	}
	p.Table([]string{"limit", "measured", "met"}, rows...)
}

func (r *Report) freshness(p *report.Printer) {
	f := r.Freshness
	p.Text("\n## Freshness\n\n%s root posts with tags were written at %.0f a second for %s, at random times, by %d accounts, onto the history of\n"+
		"%s posts. For each: when an official Jetstream client of the benchmark's own had it, and when the first answer of\n"+
		"`/v1/posts?tags=%s&before=TOKEN` showed it, asked for again as soon as it was answered (%s answers; about one in %.1f ms).\n"+
		"Our client takes events one by one; the client in ingest waits up to 20 ms to hand on several, and the indexer up to\n"+
		"20 ms for more of a batch. Every post was seen.\n",
		report.Count(f.Posts), f.PerSecond, r.Config.For, accounts, report.Count(last(r.Config.Histories)), freshTag, report.Count(f.Polls), report.Millis(r.Config.For)/float64(max(f.Polls, 1)))
	row := func(what string, q Quantiles) []string {
		return []string{what, ms(q.P50), ms(q.P90), ms(q.P99), ms(q.Max)}
	}
	p.Table([]string{"way", "p50", "p90", "p99", "max"},
		row("**arrival at a client to first answer**", f.Shown),
		row("— of that: to the stream's own time of storing (ingest)", f.Stored),
		row("— of that: from there to the answer (indexer, api)", f.Indexed),
		row("before: commit on the network to arrival (Jetstream)", f.Upstream))
}

func (r *Report) memory(p *report.Printer) {
	p.Text("\n## Memory\n\nThe most resident memory that each process ever had (`VmHWM` in `/proc/PID/status`): ingest from replaying the archive\n"+
		"into the stream, the indexer from folding it into the index, the api from %d clients that read pages of %d posts with 1 to 5\n"+
		"of the %d commonest tags for %s. At the largest history the measurements of freshness and pages are in it too.\n",
		loadClients, pageLimit, loadTags, r.Config.Load)
	var rows [][]string
	for _, m := range r.Memory {
		rows = append(rows, []string{report.Count(m.Posts), mib(m.Ingest), mib(m.Indexer), mib(m.API), report.Count(m.Answers)})
	}
	if n := len(r.Memory); n > 1 {
		a, b := r.Memory[0], r.Memory[n-1]
		rows = append(rows, []string{"ratio " + report.Ratio(float64(b.Posts), float64(a.Posts)), report.Ratio(float64(b.Ingest), float64(a.Ingest)),
			report.Ratio(float64(b.Indexer), float64(a.Indexer)), report.Ratio(float64(b.API), float64(a.API)), ""})
	}
	p.Table([]string{"history", "ingest", "indexer", "api", "answers of the api"}, rows...)
}

func (r *Report) throughput(p *report.Printer) {
	p.Text("\n## Throughput\n\nEach alone, with a history of %s posts. The rate is between the first progress seen and the last; the time is from the\n"+
		"start of the process, and for a rebuild until the new index is the live one, vacuum included.\n", report.Count(last(r.Config.Histories)))
	row := func(what string, pace Pace) []string {
		return []string{what, report.Count(pace.Count), report.Count(int(pace.PerSecond)), fmt.Sprintf("%.1f s", pace.Took.Seconds()), report.Ratio(pace.PerSecond, r.Fold.PerSecond)}
	}
	p.Table([]string{"step", "count", "a second", "time", "to indexing"},
		row("archive to stream (`ingest`), posts", r.Replay),
		row("stream to Postgres (`indexer`), messages", r.Fold),
		row("stream to a new index (`indexer rebuild`), messages", r.Rebuild))
}

func (r *Report) pages(p *report.Printer) {
	p.Text("\n## Pages\n\nPages of %d posts of the commonest tags, with their records, for %d clients that each ask again when they have the answer; the\n"+
		"kinds take turns of %s, %s each in all. A page costs the same at any depth where the ratio is near 1.\n", pagePosts, pageClients, r.Config.Pages/pageRounds, r.Config.Pages)
	var rows [][]string
	for i := 0; i+1 < len(r.Pages); i += 2 {
		first, deep := r.Pages[i], r.Pages[i+1]
		rows = append(rows, []string{fmt.Sprint(first.Tags), report.Count(int(first.PerSecond())), report.Count(int(deep.PerSecond())), report.Count(deep.Depth),
			"**" + report.Ratio(deep.PerSecond(), first.PerSecond()) + "**"})
	}
	p.Table([]string{"tags", "first page, a second", "deep page, a second", "posts before it", "deep to first"}, rows...)
}

func (r *Report) cost(p *report.Printer) {
	c := r.Cost
	n := float64(c.Posts)
	p.Text("\n## Cost of keeping\n\nWhat the history of %s posts takes on disk. Its records have %.0f bytes as JSON and its posts %.2f tags on average; their texts\n"+
		"are made up, and an archive is replayed account by account: a live stream compresses less, so its size before compression\n"+
		"is the upper bound. Without retention the stream and the index both grow by this. Postgres keeps up to `max_wal_size` of\n"+
		"log besides, and updates and deletions leave space that it uses again.\n", report.Count(c.Posts), c.RecordBytes, c.Tags)
	rows := [][]string{
		{"stream, as stored (compressed)", report.Count(int(c.Stream)), fmt.Sprintf("%.0f", float64(c.Stream)/n), perMillion(c.Stream, c)},
		{"stream, before compression", report.Count(int(c.StreamPlain)), fmt.Sprintf("%.0f", float64(c.StreamPlain)/n), perMillion(c.StreamPlain, c)},
	}
	for _, t := range c.Tables {
		if t.Rows > 1 {
			what := fmt.Sprintf("`%s`: %s rows, %s heap + %s indexes", t.Name, report.Count(int(t.Rows)), report.Count(int(t.Heap)), report.Count(int(t.Indexes)))
			rows = append(rows, []string{what, report.Count(int(t.Bytes())), fmt.Sprintf("%.0f", float64(t.Bytes())/n), perMillion(t.Bytes(), c)})
		}
	}
	rows = append(rows, []string{"Postgres, all tables", report.Count(int(c.Postgres())), fmt.Sprintf("%.0f", float64(c.Postgres())/n), perMillion(c.Postgres(), c)})
	p.Table([]string{"what", "bytes", "bytes a post", "per million posts"}, rows...)
	p.Text("\nTogether: (%s + %s) bytes / %s posts × 1,000,000 = **%s** for each million tagged posts; %s if the stream did not compress\nat all.\n",
		report.Count(int(c.Stream)), report.Count(int(c.Postgres())), report.Count(c.Posts), perMillion(c.Stream+c.Postgres(), c), perMillion(c.StreamPlain+c.Postgres(), c))
}

func perMillion(bytes int64, c Cost) string {
	return fmt.Sprintf("%.2f GB", float64(bytes)/float64(c.Posts)*1e6/1e9)
}

func last(all []int) int { return all[len(all)-1] }

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", report.Millis(d)) }

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
