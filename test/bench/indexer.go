package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/site"
)

// feedTables are the tables that a rebuild does not write.
var feedTables = []string{"changes", "change_tags"}

// fillIndex lets the indexer fold the stream.
func (r *runner) fillIndex(ctx context.Context) error {
	_, err := r.foldStream(ctx)
	return err
}

// foldStream lets the indexer fold the stream into a new index, and returns the messages per
// second. The indexer keeps running.
func (r *runner) foldStream(ctx context.Context) (float64, error) {
	if err := r.indexer.Terminate(); err != nil {
		return 0, err
	}
	if err := r.emptyIndex(ctx); err != nil {
		return 0, err
	}
	st, err := stream.GetState(ctx, r.js)
	if err != nil {
		return 0, err
	}
	if err := r.startIndexer(); err != nil {
		return 0, err
	}
	rate, err := follow(ctx, r.indexer, float64(st.Last), func(ctx context.Context) (float64, error) {
		status, err := r.index.Status(ctx)
		return float64(status.Checkpoint.Seq), err
	})
	r.peak(r.indexer)
	return rate, err
}

// measureIndexer measures folding the stream into an empty index.
func (r *runner) measureIndexer(ctx context.Context) error {
	if err := r.ingest.Terminate(); err != nil { // what it reads last is part of no round
		return err
	}
	st, err := stream.GetState(ctx, r.js)
	if err != nil {
		return err
	}
	n := float64(st.Last)
	same := Figure{Name: "stream to an empty index, messages", Unit: "/s", Peer: "COPY of the same rows, same indexes", Bar: .4}
	after := Figure{Name: "the same", Unit: "/s", Peer: "COPY, indexes built after"}
	err = r.turns(ctx, func() error {
		var rate float64
		worked, err := r.worked(func() (err error) {
			rate, err = r.foldStream(ctx)
			return err
		}, func() *process.Program { return r.nats }, func() *process.Program { return r.indexer })
		if err != nil {
			return err
		}
		same.Ours, after.Ours = append(same.Ours, rate), append(after.Ours, rate)
		r.spend("message folded", int(n), worked)
		return r.indexer.Terminate()
	}, func() error {
		if r.indexer == nil { // the order alternates, but there are no rows before the first fold
			return nil
		}
		var times [2]float64
		worked, err := r.worked(func() (err error) {
			times[0], err = r.copyIn(ctx, false, nil)
			return err
		})
		if err != nil {
			return err
		}
		r.spend("message's rows copied", int(n), worked)
		if times[1], err = r.copyIn(ctx, true, nil); err != nil {
			return err
		}
		same.Theirs, after.Theirs = append(same.Theirs, n/times[0]), append(after.Theirs, n/times[1])
		return nil
	})
	if err != nil {
		return err
	}
	r.figure(same)
	r.figure(after)
	if err := r.startIndexer(); err != nil {
		return err
	}
	return until(ctx, readyPoll, func() (bool, error) {
		ready, _ := r.indexer.Ready()
		return ready, r.indexer.Alive()
	})
}

// copyIn copies the live index's rows through files into equal tables, and returns the seconds that
// took, with the indexes created before or after the copy.
func (r *runner) copyIn(ctx context.Context, indexesAfter bool, without []string) (seconds float64, err error) {
	const peer = "peer"
	err = r.pg.Do(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+peer+" CASCADE; CREATE SCHEMA "+peer+"; CHECKPOINT"); err != nil {
			return err
		}
		rows, _ := conn.Query(ctx, "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r' ORDER BY 1", store.Live)
		tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		var took time.Duration
		for _, table := range tables {
			if slices.Contains(without, table) {
				continue
			}
			like := "INCLUDING ALL"
			if indexesAfter {
				like += " EXCLUDING INDEXES"
			}
			if _, err := conn.Exec(ctx, fmt.Sprintf("CREATE TABLE %s.%s (LIKE %s.%[2]s %[4]s)", peer, table, store.Live, like)); err != nil {
				return err
			}
			file, err := os.Create(filepath.Join(r.dir, "rows"))
			if err != nil {
				return err
			}
			defer file.Close()
			if _, err := conn.PgConn().CopyTo(ctx, file, fmt.Sprintf("COPY %s.%s TO STDOUT (FORMAT binary)", store.Live, table)); err != nil {
				return err
			}
			if _, err := file.Seek(0, 0); err != nil {
				return err
			}
			began := time.Now()
			if _, err := conn.PgConn().CopyFrom(ctx, file, fmt.Sprintf("COPY %s.%s FROM STDIN (FORMAT binary)", peer, table)); err != nil {
				return err
			}
			took += time.Since(began)
		}
		if indexesAfter {
			rows, _ := conn.Query(ctx, "SELECT indexdef FROM pg_indexes WHERE schemaname = $1 AND tablename <> ALL($2)", store.Live, without)
			indexes, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			began := time.Now()
			for _, def := range indexes {
				if _, err := conn.Exec(ctx, strings.Replace(def, " ON "+store.Live+".", " ON "+peer+".", 1)); err != nil {
					return err
				}
			}
			took += time.Since(began)
		}
		seconds = took.Seconds()
		_, err = conn.Exec(ctx, "DROP SCHEMA "+peer+" CASCADE")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("copy the index's rows: %w", err)
	}
	return seconds, nil
}

// measureRebuild measures "indexer rebuild" up to the switch, next to a COPY of what it writes.
func (r *runner) measureRebuild(ctx context.Context) error {
	if err := r.ingest.Terminate(); err != nil {
		return err
	}
	st, err := stream.GetState(ctx, r.js)
	if err != nil {
		return err
	}
	n := float64(st.Last)
	whole := Figure{Name: "rebuild with its comparison, messages", Unit: "/s", Peer: "COPY of the same rows, same indexes", Bar: .4}
	comparing := Figure{Name: "share of the comparison in it", Bar: .25, AtMost: true}
	err = r.turns(ctx, func() error {
		var took, compared time.Duration
		worked, err := r.worked(func() (err error) {
			took, compared, err = r.rebuild(ctx)
			return err
		}, func() *process.Program { return r.nats })
		if err != nil {
			return err
		}
		r.spend("message rebuilt", int(n), worked)
		whole.Ours = append(whole.Ours, n/took.Seconds())
		comparing.Ours = append(comparing.Ours, compared.Seconds()/took.Seconds())
		return nil
	}, func() error {
		seconds, err := r.copyIn(ctx, false, feedTables)
		whole.Theirs = append(whole.Theirs, n/seconds)
		return err
	})
	if err != nil {
		return err
	}
	r.figure(whole)
	r.figure(comparing)
	return nil
}

// rebuild runs "indexer rebuild", and returns the time from its start to the switch, and the part
// of it spent comparing, according to its log.
func (r *runner) rebuild(ctx context.Context) (took, compared time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, paceLimit)
	defer cancel()
	log := filepath.Join(r.dir, service.Indexer+"-rebuild.log")
	if err := os.Remove(log); err != nil && !os.IsNotExist(err) {
		return 0, 0, err
	}
	began := time.Now()
	p, err := r.run(service.Indexer, []string{"rebuild"}, map[string]string{"NATS_URL": r.natsURL, "DATABASE_URL": r.pg.URL(site.OwnerRole)})
	if err != nil {
		return 0, 0, err
	}
	defer p.End()
	var comparing, same, switched time.Time
	err = until(ctx, paceEvery, func() (bool, error) {
		for line := range strings.SplitSeq(p.Output(), "\n") {
			var entry struct {
				Time time.Time
				Step string
			}
			if json.Unmarshal([]byte(line), &entry) != nil {
				continue
			}
			switch {
			case strings.HasPrefix(entry.Step, "comparing"):
				comparing = entry.Time
			case strings.HasPrefix(entry.Step, "there is no difference"):
				same = entry.Time
			case strings.HasPrefix(entry.Step, "switched"):
				switched = entry.Time
			}
		}
		return !switched.IsZero(), p.Alive()
	})
	if err == nil && (comparing.IsZero() || same.IsZero()) {
		err = fmt.Errorf("it says nothing of a comparison")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("follow a rebuild: %w: %s", err, p.Tail())
	}
	r.peak(p)
	select {
	case <-p.Done():
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("wait for the end of a rebuild: %w", context.Cause(ctx))
	}
	return switched.Sub(began), same.Sub(comparing), p.Terminate()
}
