package lab

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tagstream/tagstream/test/report"
)

// Write writes the report as Markdown: tables, and a sentence for each.
func (r *Report) Write(w io.Writer) error {
	p := report.NewPrinter(w)
	p.Text("# The pagination lab\n\nWritten by `make lab`. The same questions, asked of one index by `OFFSET`, by `tag = ANY`, by orders that\n"+
		"do not tell rows apart, and by Tagstream, in pages of %d. Compare ratios: times are of one machine.\n"+
		"[Paging](../paging.md) says why it is built so.\n", page)
	for _, section := range []func(*report.Printer){r.bars, r.setting, r.depths, r.walks, r.boths, r.filters, r.listing, r.others} {
		section(p)
	}
	return p.Err()
}

// worst returns the page that came closest to its bound or exceeded it.
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

// met reports whether no bar of a name was missed.
func (r *Report) met(prefix string) bool {
	for _, err := range r.Missed {
		if strings.HasPrefix(err.Error(), prefix) {
			return false
		}
	}
	return true
}

// bars reports for each bar whether it was met.
func (r *Report) bars(p *report.Printer) {
	pages, at, nearest := r.worst()
	growth, work, latency, most := 0.0, 0.0, 0.0, 0
	for _, d := range r.Depths {
		growth = max(growth, d.Growth(byUs))
	}
	for _, b := range r.Boths {
		work, latency, most = max(work, b.WorkRatio()), max(latency, b.LatencyRatio()), max(most, b.Most)
	}
	for _, f := range r.Filters {
		most = max(most, f.Most)
	}
	listed := 0
	for _, l := range r.Listing.Pages {
		if strings.HasPrefix(l.Direction, byUs) {
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
	planning := "unknown: no pg_stat_statements"
	if r.Planning.Known {
		planning = fmt.Sprintf("%d in %s requests", r.Planning.LaterPlans, report.Count(r.Planning.Requests))
	}
	lists := r.met("any of")
	p.Table([]string{"bar", "measured", "met"},
		[]string{"index rows of a page <= 50 + 1 + tags + overlap", fmt.Sprintf("%d of %s in the nearest of %d pages", at.By[byUs].Entries, report.Count(at.Bound(len(nearest.Tags))), pages), report.Verdict(lists)},
		[]string{"no sort, index-only, no heap fetch after vacuum", fmt.Sprintf("%d plans", pages), report.Verdict(lists)},
		[]string{"heap fetches of a first page that changed <= the page", fmt.Sprint(r.Head), report.Verdict(r.met("live head"))},
		[]string{fmt.Sprintf("latency of the deepest page <= %.1f of page 1", LatencyLimit), fmt.Sprintf("%.2f", growth), report.Verdict(growth <= LatencyLimit)},
		[]string{"nothing twice or missed, under changes and over ties", fmt.Sprintf("%d and %d in %d walks", again, missed, exact), report.Verdict(r.met("drift") && r.met("ties"))},
		[]string{fmt.Sprintf("all of two tags: work <= %.0f of the better simple way", WorkLimit), fmt.Sprintf("%.2f", work), report.Verdict(work <= WorkLimit)},
		[]string{"the same in latency", fmt.Sprintf("%.2f", latency), report.Verdict(latency <= WorkLimit)},
		[]string{"work of any request <= " + report.Count(requestBound), report.Count(most), report.Verdict(most <= requestBound)},
		[]string{fmt.Sprintf("tags inside a tie: rows <= %d", listingBound), report.Count(listed), report.Verdict(r.met("list of tags"))},
		[]string{"plans made after the first round", planning, report.Verdict(r.Planning.Known && r.Planning.LaterPlans == 0)},
	)
	for _, err := range r.Missed {
		p.Text("\n- Not met: %s\n", err)
	}
}

func (r *Report) setting(p *report.Printer) {
	m, c := r.Machine, r.Corpus
	p.Text("\n## Setting\n\nThe indexer's own writer fills the index, which is then vacuumed; autovacuum is off. Latency is the median that\n"+
		"a client sees on a warm connection. Rows are what `pg_stat_*_indexes` counts, and work is rows + %d for each\n"+
		"descent of an index.\n", descentWork)
	p.Table([]string{"of", "is"},
		[]string{"posts", fmt.Sprintf("%s, %.1f tags each; %s MB; seed %d", report.Count(c.Posts), float64(c.PostTags)/float64(c.Posts), report.Count(int(c.Bytes>>20)), r.Config.Seed)},
		[]string{"tags", fmt.Sprintf("%s; `%s` on %.1f%% of the posts, `%s` on %.0f%%", report.Count(c.Tags), hotTag, share(c.Hot, c.Posts), floodTag, share(c.Flood, c.Posts))},
		[]string{"ties", fmt.Sprintf("%.0f%% of the posts share their microsecond; %s tags have one post", share(c.Tied, c.Posts), report.Count(c.Ties))},
		[]string{"run", fmt.Sprintf("%s, %s, commit %s, load %s to %s", m.Date.Format("2006-01-02"), r.Took.Round(time.Second), m.Commit, m.LoadAt, m.LoadPast)},
		[]string{"machine", fmt.Sprintf("%s, %d cores; Postgres %s; %s", m.CPU, m.Cores, m.Postgres, m.Go)},
	)
}

func share(part, of int) float64 { return 100 * float64(part) / float64(max(of, 1)) }

// ms formats a time in milliseconds, with appropriate precision.
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

// depths prints the first page, the deepest, and page 1,000 between them.
func (r *Report) depths(p *report.Printer) {
	p.Text("\n## Depth\n\n`OFFSET` reads what comes before, `= ANY` sorts what comes after; Tagstream reads one ordered branch for each tag, and stops.\n")
	var rows [][]string
	sorts := map[string]int{}
	for _, d := range r.Depths {
		for direction, c := range d.Pages[len(d.Pages)-1].By {
			sorts[direction] += min(len(c.Sorts), 1)
		}
		for i, at := range d.Pages {
			if i > 0 && i < len(d.Pages)-1 && at.Page != 1000 {
				continue
			}
			row := []string{d.Name, report.Count(at.Page)}
			for _, direction := range []string{byOffset, byAny, byUs} {
				row = append(row, ms(at.By[direction].Latency), report.Count(at.By[direction].Entries))
			}
			rows = append(rows, row)
		}
	}
	p.Table([]string{"list", "page", "OFFSET ms", "rows", "= ANY ms", "rows", "Tagstream ms", "rows"}, rows...)
	five := r.Depths[2]
	last := five.Pages[len(five.Pages)-1]
	p.Text("\nOf the %d plans of the deepest pages, %d sort or hash with `OFFSET`, %d with `= ANY`, %d with Tagstream. Page %s of %s, without what is looked up once:\n\n```\n%s\n```\n",
		len(r.Depths), sorts[byOffset], sorts[byAny], sorts[byUs], report.Count(last.Page), five.Name, strings.TrimSpace(last.By[byUs].Outline))
}

// walks prints what readers that read page by page saw.
func (r *Report) walks(p *report.Printer) {
	p.Text("\n## Drift and ties\n\nUnder drift, %s posts come and %s go while all readers read in turns; under ties nothing changes. *Again* and *missed*\n"+
		"count rows that were there throughout.\n", report.Count(r.Drift.Inserted), report.Count(r.Drift.Deleted))
	var rows [][]string
	for _, list := range []struct {
		name string
		all  []Reading
	}{{"posts, drift", r.Drift.Readings}, {"tags, drift", r.TagDrift.Readings}, {"posts, ties", r.Ties.Posts}, {"tags, ties", r.Ties.Tags}} {
		for _, one := range list.all {
			missed := report.Count(one.Missed)
			if one.Stuck {
				missed = "the rest"
			}
			rows = append(rows, []string{list.name, one.Direction, report.Count(one.Rows), report.Count(one.Again), missed})
		}
	}
	p.Table([]string{"list", "read by", "rows", "again", "missed"}, rows...)
}

func (r *Report) boths(p *report.Printer) {
	p.Text("\n## All of two tags\n\nWork until the page is full: by probes of the rarer list's posts, by merging both lists, and by Tagstream, which picks as it goes;\n" +
		"from the newest post or from the middle, whichever is worse for Tagstream.\n")
	var rows [][]string
	for i, b := range r.Boths {
		if other := r.Boths[i^1]; b.Name != other.Name || b.WorkRatio() < other.WorkRatio() || b.WorkRatio() == other.WorkRatio() && i%2 == 1 {
			continue
		}
		row := []string{b.Name}
		for _, direction := range []string{byProbe, byMerge, byUs} {
			row = append(row, report.Count(b.By[direction].Work()))
		}
		rows = append(rows, append(row, fmt.Sprintf("%.2f", b.WorkRatio()), fmt.Sprintf("%.2f", b.LatencyRatio())))
	}
	p.Table([]string{"pair", "probe", "merge", "Tagstream", "work to the better", "latency"}, rows...)
}

func (r *Report) filters(p *report.Printer) {
	p.Text("\n## Filters\n\nNo plan sorts, and answers equal those found by reading all posts.\n")
	var rows [][]string
	for _, f := range r.Filters {
		rows = append(rows, []string{f.Name, report.Count(f.Most), ms(f.Latency)})
	}
	p.Table([]string{"query", "work of a request", "ms"}, rows...)
}

func (r *Report) listing(p *report.Printer) {
	l := r.Listing
	p.Text("\n## The list of tags\n\nPages of %d, by (posts DESC, name ASC), in the middle of the tie of the %s tags with one post, and the bounded admin table.\n", tagPage, report.Count(l.Tie))
	var rows [][]string
	for _, page := range append(l.Pages, l.Ranked...) {
		if page.Where == middleOfTie || strings.HasSuffix(page.Direction, "bounded") {
			rows = append(rows, []string{page.Where, page.Direction, report.Count(page.Read), ms(page.Latency)})
		}
	}
	p.Table([]string{"page", "way", "rows", "ms"}, rows...)
}

func (r *Report) others(p *report.Printer) {
	p.Text("\n## Planning and tokens\n\n")
	if g := r.Planning; g.Known {
		p.Text("%d statements ran %s times and were planned %d times, %d of them after the first round.\n", g.Statements, report.Count(g.Calls), g.FirstPlans+g.LaterPlans, g.LaterPlans)
	}
	var rows [][]string
	for _, t := range r.Tokens.Tries {
		rows = append(rows, []string{t.What, report.Count(t.Tried), report.Count(t.Bad), report.Count(t.Mismatched)})
	}
	p.Table([]string{"token", "tried", "`invalid_cursor`", "`cursor_mismatch`"}, rows...)
}
