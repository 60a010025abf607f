package lab

import (
	"fmt"
	"strings"

	"github.com/tagstream/tagstream/test/report"
)

// readingRows are the rows of a table of readings.
func readingRows(all []Reading) [][]string {
	var rows [][]string
	for _, r := range all {
		way, missed := r.Way, report.Count(r.Missed)
		if r.Exact {
			way = "**" + way + "**"
		}
		if r.Stuck {
			missed = "all that follow: the same page for ever"
		}
		rows = append(rows, []string{way, report.Count(r.Pages), report.Count(r.Rows), report.Count(r.Again), missed})
	}
	return rows
}

var readingHead = []string{"read by", "pages", "rows shown", "shown again", "missed"}

func (r *Report) drift(p *report.Printer) {
	d := r.Drift
	p.Text("\n## Drift\n\nReaders go through one list page by page, in turns. After each turn the writer commits a transaction: 1 to %d posts are deleted anywhere\n"+
		"in the list, and 1 to %d come in, half of them at the newest end, half late, with an older time. All readers see the same changes at\n"+
		"the same moments. *Shown again* and *missed* count only rows that were there from the first page to the last, and did not move: what\n"+
		"came or went meanwhile is nobody's fault.\n\n![rows shown again and missed](drift.svg)\n\n", maxChurn, maxChurn)
	p.Text("**Posts** with `%s`, newest first: %s at the start, %s of them stayed; %s transactions, %s came, %s went.\n", driftTag, report.Count(d.Rows), report.Count(d.Stayed),
		report.Count(d.Steps), report.Count(d.Inserted), report.Count(d.Deleted))
	p.Table(readingHead, readingRows(d.Readings)...)
	t := r.TagDrift
	p.Text("\n**Tags**, most used first, pages of %d, while the same goes on: %s at the start, the counts of %s did not move; %s transactions, %s posts came,\n%s went.\n",
		tagPage, report.Count(t.Rows), report.Count(t.Stayed), report.Count(t.Steps), report.Count(t.Inserted), report.Count(t.Deleted))
	p.Table(readingHead, readingRows(t.Readings)...)
	p.Text("\nOFFSET counts from a top that moves: what comes in above the reader pushes a row that it has seen onto its next page, what goes out\n"+
		"above pulls one past it. Where more comes than goes it repeats, else it loses; here it does both.\n\n"+
		"**The live head.** Right after the changes to the posts, before any vacuum, the first page makes %d heap fetches for %d index rows: an\n"+
		"index-only scan looks at the table for rows on pages that changed. It is never more than the page. (EXPLAIN, as above.)\n", r.Head.Heap, r.Head.ListRows)
}

func (r *Report) ties(p *report.Printer) {
	p.Text("\n## Ties: orders that do not tell rows apart\n\nNobody writes here. **Posts**: the first %d pages of `%s`, ordered by time alone and by time and hash.\n", r.Config.Walk, floodTag)
	p.Table(readingHead, readingRows(r.Ties.Posts)...)
	p.Text("\n`<` steps over the rest of a microsecond that a page ends in. `<=` shows it again, and where a tie is longer than a page it never leaves it.\n\n"+
		"**Tags**: the whole list, of which %s have one post. By count alone in pages of %s for OFFSET, which sorts the list for each page\n"+
		"and breaks ties as the sort happens to; pages of %d for the others.\n", report.Count(r.Corpus.Ties), report.Count(wideTagPage), tagPage)
	p.Table(readingHead, readingRows(r.Ties.Tags)...)
}

func (r *Report) boths(p *report.Printer) {
	p.Text("\n## All of two tags\n\nA page of posts with both of two tags, and whether there is anything behind it. **Probe** reads the rarer list and asks the other for each of its\n" +
		"posts; **merge** reads both side by side. Each is the better one for some pairs and hopeless for others, and a generic plan always\n" +
		"merges. Tagstream samples how dense both lists are where it stands, picks, goes on in segments that grow, and looks anew between\n" +
		"them. It answers with a short page when a request has done enough; figures are of all requests until the page was full or the list\n" +
		"ended, *most* of the one that did most. Probe and merge are run to the end in one statement, however long that takes. All three are\n" +
		"whole requests.\n\n![work by pair](both.svg)\n")
	var rows [][]string
	for _, b := range r.Boths {
		row := []string{b.Name, b.From, report.Count(b.Posts[0]) + " : " + report.Count(b.Posts[1]), report.Count(b.Common), fmt.Sprint(b.Found)}
		for _, way := range []string{byProbe, byMerge, byUs} {
			c := b.By[way]
			row = append(row, fmt.Sprintf("%s + %s", report.Count(c.Entries), report.Count(c.Scans)), ms(c.Latency))
		}
		rows = append(rows, append(row, fmt.Sprint(b.Requests), report.Count(b.Most), fmt.Sprintf("**%.2f**", b.WorkRatio()), fmt.Sprintf("%.2f", b.LatencyRatio())))
	}
	p.Table([]string{"pair", "from", "posts", "with both", "found", "probe: entries + descents", "ms", "merge", "ms", "**Tagstream**", "ms", "requests", "most", "work ratio", "latency ratio"}, rows...)
	p.Text("\nRatios are to the better of the two simple ways, by work and by latency. Work below %d, one page of each list, counts as that: where\nthere is next to nothing to read, a request costs what a request costs.\n", leastWork)
	for _, b := range r.Boths {
		if probe, merge := b.By[byProbe], b.By[byMerge]; b.Name == sparseName && b.From == bothFrom[0].name {
			a, d := merge.Latency.Seconds()*1e6/float64(max(merge.Entries, 1)), probe.Latency.Seconds()*1e6/float64(max(probe.Scans, 1))
			p.Text("\nIn this run an entry took %.2f µs read in a row, and a probe %.2f µs, %.1f times that (latencies of \"%s\" over their counts);\nwork counts %d.\n",
				a, d, d/a, b.Name, descentWork)
		}
	}
}

func (r *Report) filters(p *report.Printer) {
	p.Text("\n## Filters\n\nThe same walk along `post_tags`, with what is not wanted left out on the way: `none` and dense languages are probed, sparse languages are read\n" +
		"beside the tags, `since` and `until` are the ends of the range. Every answer is compared with one found by reading all posts. Plans are\n" +
		"checked like those above: no Sort, index-only, no heap fetches.\n")
	var rows [][]string
	for _, f := range r.Filters {
		rows = append(rows, []string{f.Name, fmt.Sprint(f.Found), fmt.Sprint(f.Requests), report.Count(f.Entries), report.Count(f.Scans), report.Count(f.Records), report.Count(f.Most), ms(f.Latency)})
	}
	p.Table([]string{"query", "posts found", "requests", "entries", "descents", "records", "most work in a request", "ms"}, rows...)
}

func (r *Report) listing(p *report.Printer) {
	l := r.Listing
	p.Text("\n## The list of tags\n\nBy (posts DESC, name ASC), pages of %d, inside the tie of the %s tags that have one post, behind %s others. \"OR of conditions\" is\n"+
		"`posts < p OR (posts = p AND name > n)` over the very same index: it gives the order, and no place to start.\n", tagPage, report.Count(l.Tie), report.Count(l.Before))
	var rows [][]string
	for _, page := range append(l.Pages, l.Ranked...) {
		way := page.Way
		if strings.HasPrefix(way, byUs) {
			way = "**" + way + "**"
		}
		rows = append(rows, []string{page.Where, way, report.Count(page.Read), ms(page.Latency)})
	}
	p.Table([]string{"page at", "way", "rows read", "ms"}, rows...)
	p.Text("\nRows of ours are the index's statistics: the page, one that proves that there are more, one that proves that there are some behind. Of the\n"+
		"others, what the plan's scan gave out and dropped. Our plan in the tie:\n\n```\n%s```\n", l.Plan.Outline)
}

func (r *Report) planning(p *report.Printer) {
	p.Text("\n## Planning\n\n")
	g := r.Planning
	if !g.Known {
		p.Text("Not measured: this server has no pg_stat_statements.\n")
		return
	}
	p.Text("%s requests of every kind in this report, at changing places, on one connection: %d different statements ran %s times and were planned\n"+
		"%d times, all in the first round; **%d times after it**. Planning took %s ms in all, running %s ms. (pg_stat_statements, track_planning.)\n"+
		"An ANALYZE of a table makes each connection plan anew, once.\n",
		report.Count(g.Requests), g.Statements, report.Count(g.Calls), g.FirstPlans, g.LaterPlans, ms(g.Took), ms(g.Ran))
}

func (r *Report) tokens(p *report.Printer) {
	p.Text("\n## Tokens\n\nA token of the first list here is `%s`. What was made of one, and what became of it (`pkg/keyset`, the codec of the\nAPI, which asks it before it asks Postgres; `TestRefused` holds that with a reader that has no server):\n", r.Tokens.Example)
	var rows [][]string
	for _, t := range r.Tokens.Tries {
		rows = append(rows, []string{t.What, report.Count(t.Tried), report.Count(t.Bad), report.Count(t.Mismatched)})
	}
	p.Table([]string{"token", "tried", "`invalid_cursor`", "`cursor_mismatch`"}, rows...)
}
