package bench

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/stream"
)

// Cost is what a history takes on disk, in bytes, while it is kept.
type Cost struct {
	Posts int
	// Stream is the size of the files of the stream, which are compressed, and StreamPlain that of its messages.
	Stream, StreamPlain int64
	// Tables are those of the index, the largest first.
	Tables []TableCost
	// RecordBytes is the average length of a record as JSON, and Tags how many tags a post has on average.
	RecordBytes, Tags float64
}

// TableCost is what one table takes on disk, in bytes.
type TableCost struct {
	Name          string
	Rows          int64
	Heap, Indexes int64 // Heap with everything that is not an index
}

// Bytes is the size of the table with its indexes.
func (t TableCost) Bytes() int64 { return t.Heap + t.Indexes }

// Postgres is the size of all tables.
func (c Cost) Postgres() int64 {
	var sum int64
	for _, t := range c.Tables {
		sum += t.Bytes()
	}
	return sum
}

// cost measures what the history takes. Nothing must have been written besides it.
func (s *installation) cost(ctx context.Context) (Cost, error) {
	out := Cost{Posts: s.posts}
	st, err := stream.GetState(ctx, s.js)
	if err != nil {
		return out, err
	}
	out.StreamPlain = int64(st.Bytes)
	if out.Stream, err = streamFiles(s.natsDir()); err != nil {
		return out, err
	}
	err = s.sql(ctx, func(conn *pgx.Conn) error {
		// Counts by statistics would need an ANALYZE; the tables here are small enough to be counted.
		rows, err := conn.Query(ctx, `
			SELECT c.relname,
			       (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM tagstream.%I', c.relname), false, true, '')))[1]::text::bigint,
			       pg_total_relation_size(c.oid) - pg_indexes_size(c.oid), pg_indexes_size(c.oid)
			  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			 WHERE n.nspname = 'tagstream' AND c.relkind = 'r'
			 ORDER BY pg_total_relation_size(c.oid) DESC, c.relname`)
		if err != nil {
			return err
		}
		if out.Tables, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TableCost]); err != nil {
			return err
		}
		return conn.QueryRow(ctx, "SELECT avg(octet_length(record))::float8, avg(cardinality(tags))::float8 FROM tagstream.posts").Scan(&out.RecordBytes, &out.Tags)
	})
	if err != nil {
		return out, fmt.Errorf("measure the index: %w", err)
	}
	return out, nil
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
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			sum += info.Size()
		}
		return ignoreGone(err)
	})
	if err != nil {
		return 0, fmt.Errorf("measure the stream's files: %w", err)
	}
	return sum, nil
}

// ignoreGone passes over a file that the server has removed meanwhile.
func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
