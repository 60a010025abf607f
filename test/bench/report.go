package bench

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/test/report"
)

// Write writes the report as Markdown.
func (r *Report) Write(w io.Writer) error {
	p := report.NewPrinter(w)
	m := r.Machine
	p.Text("# Benchmarks\n\nWritten by `make bench`; do not edit. `test/bench` says how each figure is obtained. Everything ran on one\n" +
		"machine, over its loopback: the services, their servers, the peers and the clients share its cores. Figures and their\n" +
		"peers took turns: the ratio is what to look at, absolute speeds are this machine's at that moment.\n")
	p.Table([]string{"of", "is"},
		[]string{"commit, command", m.Commit + ", `make bench BENCH=" + strings.Join(r.Config.Parts, ",") + "`"},
		[]string{"date, time taken", m.Date.Format("2006-01-02 15:04 UTC") + ", " + r.Took.Round(time.Second).String()},
		[]string{"machine", fmt.Sprintf("%s, %d cores, %s", m.CPU, m.Cores, m.System)},
		[]string{"load average before, after", m.LoadAt + " (1, 5, 15 min); " + m.LoadPast},
		[]string{"disk", fmt.Sprintf("a synced write of 4 kB takes %.2f ms (median)", report.Millis(m.Sync))},
		[]string{"servers", fmt.Sprintf("%s; NATS %s, sync_interval always, max_payload %s; Postgres %s, %s", m.Go, m.NATS, maxPayload, m.Postgres, m.Fsync)},
		[]string{"archive", fmt.Sprintf("%s events in %.0f days: of 1,000 are %d deletions, %d edits, %d changes of accounts, the others posts; of 1,000 posts %d have tags",
			report.Count(r.Config.Events), archiveAge.Hours()/24, deletions, edits, statuses, tagged)},
		[]string{"rounds", fmt.Sprintf("%d; pages for %s each, freshness for %s", r.Config.Rounds, r.Config.Turn, r.Config.For)},
	)
	r.size(p)
	r.growth(p)
	r.work(p)
	for _, note := range r.Notes {
		p.Text("\n%s\n", note)
	}
	p.Text("\n## Figures\n\nThe median of the rounds and, in brackets, their least and most; the ratio is the median of the rounds'. A bar with\n" +
		"≤ must not be exceeded.\n")
	rows := make([][]string, len(r.Figures))
	for i, f := range r.Figures {
		rows[i] = f.row()
	}
	p.Table([]string{"figure", "ours", "peer", "theirs", "ratio", "bar", "met"}, rows...)
	return p.Err()
}

// row returns the figure's row in the table.
func (f Figure) row() []string {
	amount := func(all []float64) string {
		if len(all) == 0 {
			return ""
		}
		number := func(v float64) string {
			if v < 10 {
				return fmt.Sprintf("%.2f", v)
			}
			return report.Count(int(v + .5))
		}
		text := number(median(all)) + f.Unit
		if len(all) > 1 {
			text += fmt.Sprintf(" (%s–%s)", number(slices.Min(all)), number(slices.Max(all)))
		}
		return text
	}
	bar, met, ratio := "", "", fmt.Sprintf("**%.2f**", f.Ratio())
	if len(f.Theirs) == 0 {
		ratio = ""
	}
	if f.Bar > 0 {
		bar, met = fmt.Sprintf("%g", f.Bar), report.Verdict(f.Met())
		if f.AtMost {
			bar = "≤ " + bar
		}
	}
	return []string{f.Name, amount(f.Ours), f.Peer, amount(f.Theirs), ratio, bar, met}
}

// work writes the CPU times of the processes.
func (r *Report) work(p *report.Printer) {
	if len(r.Work) == 0 {
		return
	}
	p.Text("\n## Processor time\n\nWhat the processes worked for one, in the last round, in microseconds.\n")
	names := map[string]bool{}
	for _, w := range r.Work {
		for name := range w.PerUnit {
			names[name] = true
		}
	}
	columns := slices.Sorted(maps.Keys(names))
	var rows [][]string
	for _, w := range r.Work {
		row := []string{w.What}
		for _, name := range columns {
			cell := ""
			if d, ok := w.PerUnit[name]; ok {
				cell = fmt.Sprintf("%.1f", float64(d)/float64(time.Microsecond))
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	p.Table(append([]string{"for each"}, columns...), rows...)
}

// size writes the sizes of the archive's data.
func (r *Report) size(p *report.Printer) {
	s := r.Size
	if s == nil {
		return
	}
	n := float64(s.Posts)
	p.Text("\n## Size\n\n%s posts, of %.0f bytes a record and %.2f tags on average; %s messages in the stream. Without retention both grow\n"+
		"by this. The texts are made up; a live stream compresses less than an archive.\n", report.Count(int(s.Posts)), s.RecordBytes, s.Tags, report.Count(int(s.Messages)))
	per := func(bytes int64, n float64) string { return fmt.Sprintf("%.0f", float64(bytes)/n) }
	rows := [][]string{
		{"stream, as stored (compressed), each message", "", "", per(s.Stream, float64(s.Messages))},
		{"stream, before compression, each message", "", "", per(s.StreamPlain, float64(s.Messages))},
	}
	var sum TableSize
	for _, t := range s.Tables {
		if float64(t.Bytes())/n >= 1 {
			rows = append(rows, []string{"`" + t.Name + "`, each post", per(t.Heap, n), per(t.Indexes, n), per(t.Bytes(), n)})
		}
		sum.Heap, sum.Indexes = sum.Heap+t.Heap, sum.Indexes+t.Indexes
	}
	rows = append(rows, []string{"Postgres, all tables, each post", per(sum.Heap, n), per(sum.Indexes, n), per(sum.Bytes(), n)})
	p.Table([]string{"bytes of", "heap", "indexes", "together"}, rows...)
}

// Size has the disk sizes of the archive's data, in bytes.
type Size struct {
	Posts, Messages int64
	// Stream is the size of the stream's compressed files, and StreamPlain that of its messages.
	Stream, StreamPlain int64
	// Tables are the tables of the index, largest first.
	Tables []TableSize
	// RecordBytes is the average length of a record as JSON, and Tags the average number of tags of
	// a post.
	RecordBytes, Tags float64
}

// TableSize is the disk size of one table, in bytes.
type TableSize struct {
	Name          string
	Heap, Indexes int64 // Heap includes everything except indexes
}

// Bytes returns the size of the table with its indexes.
func (t TableSize) Bytes() int64 { return t.Heap + t.Indexes }

// minimalSchema has the columns that a page shows, and the one index that it needs.
const minimalSchema = `
	DROP SCHEMA IF EXISTS minimal CASCADE; CREATE SCHEMA minimal;
	CREATE TABLE minimal.posts (key uuid PRIMARY KEY, uri text NOT NULL UNIQUE, cid text NOT NULL, indexed_at timestamptz NOT NULL, record text NOT NULL);
	CREATE TABLE minimal.tags (id bigint PRIMARY KEY, name text NOT NULL UNIQUE);
	CREATE TABLE minimal.post_tags (tag_id bigint, key uuid, PRIMARY KEY (tag_id, key));
	INSERT INTO minimal.posts SELECT key, 'at://' || did || '/app.bsky.feed.post/' || rkey, cid, indexed_at, record
	  FROM tagstream.posts p JOIN tagstream.accounts a ON a.id = p.account_id;
	INSERT INTO minimal.tags SELECT id, name FROM tagstream.tags;
	INSERT INTO minimal.post_tags SELECT * FROM tagstream.post_tags`

// measureSize measures the sizes of the archive's data.
func (r *runner) measureSize(ctx context.Context) error {
	var out Size
	st, err := stream.GetState(ctx, r.js)
	if err != nil {
		return err
	}
	out.Messages, out.StreamPlain = int64(st.Last), int64(st.Bytes)
	if out.Stream, err = streamFiles(r.natsDir()); err != nil {
		return err
	}
	f := Figure{Name: "bytes a post in Postgres", Unit: " B", Peer: "a schema of posts, tags and post_tags alone", Bar: 1.1, AtMost: true}
	err = r.pg.Do(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, minimalSchema); err != nil {
			return err
		}
		tables := func(schema string) (all []TableSize, sum int64, err error) {
			rows, _ := conn.Query(ctx, `
				SELECT relname, pg_total_relation_size(oid) - pg_indexes_size(oid), pg_indexes_size(oid)
				  FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r' ORDER BY pg_total_relation_size(oid) DESC, relname`, schema)
			all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TableSize])
			for _, t := range all {
				sum += t.Bytes()
			}
			return all, sum, err
		}
		if err := conn.QueryRow(ctx, "SELECT count(*), avg(octet_length(record))::float8, avg(cardinality(tags))::float8 FROM tagstream.posts").
			Scan(&out.Posts, &out.RecordBytes, &out.Tags); err != nil {
			return err
		}
		_, theirs, err := tables("minimal")
		if err != nil {
			return err
		}
		var ours int64
		if out.Tables, ours, err = tables("tagstream"); err != nil {
			return err
		}
		f.Ours, f.Theirs = []float64{float64(ours) / float64(out.Posts)}, []float64{float64(theirs) / float64(out.Posts)}
		_, err = conn.Exec(ctx, "DROP SCHEMA minimal CASCADE")
		return err
	})
	if err != nil {
		return fmt.Errorf("measure the index: %w", err)
	}
	r.report.Size = &out
	r.figure(f)
	r.figure(Figure{Name: "bytes a message in NATS", Unit: " B", Peer: "its messages before compression",
		Ours: []float64{float64(out.Stream) / float64(out.Messages)}, Theirs: []float64{float64(out.StreamPlain) / float64(out.Messages)}})
	return nil
}

// streamFiles adds up the files of the stream of events in a NATS server's folder.
func streamFiles(dir string) (int64, error) {
	found, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", stream.Posts))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d folders of it, not one", len(found))
	}
	if err != nil {
		return 0, fmt.Errorf("find the stream's files: %w", err)
	}
	var sum int64
	err = filepath.WalkDir(found[0], func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				sum += info.Size()
			}
		}
		if os.IsNotExist(err) { // the server has just removed it
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measure the stream's files: %w", err)
	}
	return sum, nil
}
