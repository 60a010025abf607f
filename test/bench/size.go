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
	err = r.sql(ctx, func(conn *pgx.Conn) error {
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
