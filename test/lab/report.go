package lab

import (
	_ "embed"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tagstream/tagstream/test/report"
)

//go:embed writeup.md
var writeup string

// Write writes the report as Markdown. It refers to the pictures of Plots, in the same folder.
func (r *Report) Write(w io.Writer) error {
	p := report.NewPrinter(w)
	p.Text("# The pagination lab\n\nWritten by `make lab`; do not edit. The same questions, asked of the same index by OFFSET, by `tag = ANY`, by orders that do not\n"+
		"tell rows apart, and by Tagstream: what a page costs at any depth, and which rows a reader never sees. Rows and plans follow\n"+
		"from the seed; times are this machine's at that moment, so look at ratios. Pages have %d posts.\n", page)
	r.summary(p)
	r.setting(p)
	r.depths(p)
	r.plans(p)
	r.drift(p)
	r.ties(p)
	r.boths(p)
	r.filters(p)
	r.listing(p)
	r.planning(p)
	r.tokens(p)
	p.Text("\n## Why it is built so\n%s", writeup)
	return p.Err()
}

// worst is the page that came nearest to its bound or beyond.
func (r *Report) worst() (pages int, at DepthPage, d Depth) {
	nearest := 0
	for _, depth := range r.Depths {
		for _, p := range depth.Pages {
			pages++
			if room := p.Bound(len(depth.Tags)) - p.By[byUs].Entries; pages == 1 || room < nearest {
				nearest, at, d = room, p, depth
			}
		}
	}
	return pages, at, d
}

// met says whether no bar of a name was missed.
func (r *Report) met(prefix string) bool {
	for _, err := range r.Missed {
		if strings.HasPrefix(err.Error(), prefix) {
			return false
		}
	}
	return true
}

func (r *Report) summary(p *report.Printer) {
	pages, at, nearest := r.worst()
	growth, grown := 0.0, ""
	for _, d := range r.Depths {
		if g := d.Growth(byUs); g > growth {
			growth, grown = g, fmt.Sprintf("%s, page %s", d.Name, report.Count(d.Pages[len(d.Pages)-1].Page))
		}
	}
	work, latency, most := Both{}, Both{}, 0
	for i, b := range r.Boths {
		if i == 0 || b.WorkRatio() > work.WorkRatio() {
			work = b
		}
		if i == 0 || b.LatencyRatio() > latency.LatencyRatio() {
			latency = b
		}
		most = max(most, b.Most)
	}
	for _, f := range r.Filters {
		most = max(most, f.Most)
	}
	listed := 0
	for _, l := range r.Listing.Pages {
		if strings.HasPrefix(l.Way, byUs) {
			listed = max(listed, l.Read)
		}
	}
	var again, missed, exact int
	for _, all := range [][]Reading{r.Drift.Readings, r.TagDrift.Readings, r.Ties.Posts, r.Ties.Tags} {
		for _, one := range all {
			if one.Exact {
				again, missed, exact = again+one.Again, missed+one.Missed, exact+1
			}
		}
	}
	planning := "not measured: the server has no pg_stat_statements"
	if r.Planning.Known {
		planning = fmt.Sprintf("%d plans after the first round, %s requests", r.Planning.LaterPlans, report.Count(r.Planning.Requests))
	}
	lists := r.met("any of")
	tried := 0
	for _, t := range r.Tokens.Tries {
		tried += t.Tried
	}
	p.Table([]string{"bar", "measured", "met", "section"},
		[]string{"any of k: index rows of a page <= 50 + 1 + k + overlap, at any depth", fmt.Sprintf("%d pages; nearest to its bound: %d of %s (%s, page %s)",
			pages, at.By[byUs].Entries, report.Count(at.Bound(len(nearest.Tags))), nearest.Name, report.Count(at.Page)), report.Verdict(lists), "[depth](#depth)"},
		[]string{"no Sort; keys by index-only scan; no heap fetch after vacuum; no record fetched beyond the page", fmt.Sprintf("%d plans", pages), report.Verdict(lists), "[plans](#plans)"},
		[]string{"heap fetches on a live head bounded by the page", fmt.Sprintf("%d, with every row of the page new since the last vacuum", r.Head.Heap), report.Verdict(r.met("live head")), "[drift](#drift)"},
		[]string{fmt.Sprintf("latency of the deepest page over page 1 <= %.1f", LatencyLimit), fmt.Sprintf("%.2f (%s)", growth, grown), report.Verdict(growth <= LatencyLimit), "[depth](#depth)"},
		[]string{"under the same inserts and deletes, and over ties: nothing twice, nothing missed", fmt.Sprintf("%d twice, %d missed in %d walks", again, missed, exact),
			report.Verdict(r.met("drift") && r.met("ties")), "[drift](#drift), [ties](#ties-orders-that-do-not-tell-rows-apart)"},
		[]string{fmt.Sprintf("all of two: work never more than %.0f times the better of probe and merge", WorkLimit), fmt.Sprintf("%.2f (%s, from %s)", work.WorkRatio(), work.Name, work.From),
			report.Verdict(work.WorkRatio() <= WorkLimit), "[all of two](#all-of-two-tags)"},
		[]string{"the same in latency", fmt.Sprintf("%.2f (%s, from %s)", latency.LatencyRatio(), latency.Name, latency.From), report.Verdict(latency.LatencyRatio() <= WorkLimit), "[all of two](#all-of-two-tags)"},
		[]string{"bounded work in every request", fmt.Sprintf("at most %s; the bound is %s", report.Count(most), report.Count(requestBound)), report.Verdict(most <= requestBound), "[all of two](#all-of-two-tags), [filters](#filters)"},
		[]string{fmt.Sprintf("list of tags inside a tie: rows read <= page + 1 (%d), both ways", tagPage+1), fmt.Sprintf("%d, and 1 more that says if there are tags behind", listed-1),
			report.Verdict(r.met("list of tags")), "[list of tags](#the-list-of-tags)"},
		[]string{"no re-planning per request in steady state", planning, report.Verdict(r.Planning.Known && r.Planning.LaterPlans == 0), "[planning](#planning)"},
		[]string{"tokens that are forged, cut, foreign or of another query are refused", report.Count(tried) + " tried, all refused", "yes", "[tokens](#tokens)"},
	)
	if len(r.Missed) > 0 {
		p.Text("\n**Bars that were not met:**\n\n")
		for _, err := range r.Missed {
			p.Text("- %s\n", err)
		}
	}
}

func (r *Report) setting(p *report.Printer) {
	m, c := r.Machine, r.Corpus
	p.Text("\n## What was asked, and how figures were obtained\n\nThe index was filled by the indexer's own writer, 1,000 posts a transaction, in order of time, and vacuumed. Autovacuum is off, so that\n" +
		"no figure depends on when it comes by. Nothing is read from disk: the index is in memory, Postgres's or the system's.\n")
	p.Table([]string{"of", "is"},
		[]string{"posts", fmt.Sprintf("%s, %.1f tags each, over a year; %s MB with indexes; written in %s", report.Count(c.Posts), float64(c.PostTags)/float64(c.Posts), report.Count(int(c.Bytes>>20)), c.Took.Round(time.Second))},
		[]string{"tags", fmt.Sprintf("%s by Zipf's law; `%s` on %.1f%% of the posts; `%s`, on %.0f%%, is there to have a page 10,000", report.Count(c.Tags), hotTag, share(c.Hot, c.Posts), floodTag, share(c.Flood, c.Posts))},
		[]string{"ties", fmt.Sprintf("%.0f%% of the posts share their microsecond with others, at most %d of them one; %s tags have one post", share(c.Tied, c.Posts), c.MaxTie, report.Count(c.Ties))},
		[]string{"seed, repeat, budget", fmt.Sprintf("%d; each page is timed up to %d times, as long as one way of asking takes less than %s in all, and %d times at least", r.Config.Seed, r.Config.Repeat, r.Config.Budget, minRounds)},
		[]string{"commit", m.Commit},
		[]string{"date, time taken", m.Date.Format("2006-01-02 15:04 UTC") + ", " + r.Took.Round(time.Second).String()},
		[]string{"processor, system", fmt.Sprintf("%s, %d cores, %s", m.CPU, m.Cores, m.System)},
		[]string{"load average before, after", m.LoadAt + " (1, 5, 15 min); " + m.LoadPast},
		[]string{"Postgres, Go", fmt.Sprintf("%s, %s; %s", m.Postgres, m.Fsync, m.Go)},
	)
	p.Text(`
- **Latency** is the median, seen by the client, of a request on one warm connection over a socket. Ours is a whole request of the
  reader: a snapshot, the tags' ids, the page, whether there is anything behind it, the records. The others are one prepared
  statement with the ids known and the records fetched for the page alone: as well as these ways can be written. Depths take turns.
- **Rows** are what Postgres's statistics of the indexes count: entries that scans of `+"`post_tags`"+` and its like gave out. For ours they
  are read from `+"`pg_stat_user_indexes`"+` around requests on a connection of their own: nothing of the code is believed. **Descents** are
  scans begun; a probe is a descent, whether it finds something or not. **Work** is entries + %d x descents: what a request costs
  whatever else the machine does.
- **Plans, buffers, heap fetches** are EXPLAIN (ANALYZE, BUFFERS) of prepared statements: ours as the reader sends them, in its own
  settings, the generic plan that it uses; the others in Postgres's own.
`, descentWork)
}

func share(part, of int) float64 { return 100 * float64(part) / float64(max(of, 1)) }

// ms is a time in milliseconds, as exact as it is worth.
func ms(d time.Duration) string {
	switch v := report.Millis(d); {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return report.Count(int(v + 0.5))
	}
}

func (r *Report) depths(p *report.Printer) {
	p.Text("\n## Depth\n\nA page of %d, the further down the list. OFFSET reads all that comes before; `= ANY` goes to the place, then reads and sorts all that comes\n"+
		"after. Tagstream reads one ordered branch for each tag, and stops.\n\n![latency by page](latency.svg)\n\n![rows read by page](rows.svg)\n", page)
	for _, d := range r.Depths {
		p.Text("\n**%s** (%s): %s posts.", d.Name, tagNames(d.Tags), report.Count(d.Posts))
		if last := d.Pages[len(d.Pages)-1]; last.Page < r.Config.Depths[len(r.Config.Depths)-1] {
			p.Text(" Page %s is the deepest that is full.", report.Count(last.Page))
		}
		p.Text(" Tagstream's deepest page over its first: **%.2f**; OFFSET's: %.1f.\n", d.Growth(byUs), d.Growth(byOffset))
		var rows [][]string
		for _, page := range d.Pages {
			row := []string{report.Count(page.Page)}
			for _, way := range []string{byOffset, byAny, byUs} {
				c := page.By[way]
				row = append(row, ms(c.Latency), report.Count(c.Entries), report.Count(c.Buffers))
			}
			rows = append(rows, append(row, report.Count(page.Bound(len(d.Tags)))))
		}
		p.Table([]string{"page", "OFFSET ms", "rows", "buffers", "= ANY ms", "rows", "buffers", "**Tagstream ms**", "**rows**", "buffers", "rows allowed"}, rows...)
	}
	p.Text("\nRows allowed: 50 + 1 + k, and what the tags of the page's posts overlap, counted in the data. Buffers are of 8 kB, the records'\nincluded (about 250 of them).\n")
	first, last := r.Depths[0].Pages[0].By[byUs], r.Depths[len(r.Depths)-1].Pages[0].By[byOffset]
	p.Text("Medians of %d (Tagstream) to %d (the slowest OFFSET) requests.\n", first.Timed, last.Timed)
}

func tagNames(tags []string) string {
	if len(tags) <= 2 {
		return "`" + strings.Join(tags, "`, `") + "`"
	}
	return fmt.Sprintf("`%s`, `%s`, ... `%s`", tags[0], tags[1], tags[len(tags)-1])
}

func (r *Report) plans(p *report.Printer) {
	p.Text("\n## Plans\n\nOf the deepest page of each list.\n")
	var rows [][]string
	for _, d := range r.Depths {
		last := d.Pages[len(d.Pages)-1]
		for _, way := range []string{byOffset, byAny, byUs} {
			c := last.By[way]
			sorts := "none"
			if len(c.Sorts) > 0 {
				sorts = strings.Join(c.Sorts, ", ")
			}
			temp := "-"
			if c.Temp > 0 {
				temp = fmt.Sprintf("%s MB", report.Count(c.Temp*8/1024))
			}
			rows = append(rows, []string{d.Name, way, sorts, strings.Join(c.Access, ", "), report.Count(c.Heap), temp, report.Count(c.Records)})
		}
	}
	p.Table([]string{"list", "way", "sorts", "keys are read by", "heap fetches", "spilt to disk", "records"}, rows...)
	five := r.Depths[2]
	last := five.Pages[len(five.Pages)-1]
	p.Text("\nThe three ways to page %s of %s, as Postgres ran them. Tagstream's request is three statements: the keys, whether anything is\nbehind, the records. (Lists of tags are padded to 1, 2, 4, 8 or 20, so that there are few statements to plan; a branch of padding reads nothing.)\n",
		report.Count(last.Page), five.Name)
	for _, way := range []string{byUs, byOffset, byAny} {
		p.Text("\n%s, %s ms:\n\n```\n%s```\n", way, ms(last.By[way].Latency), last.By[way].Outline)
	}
}
