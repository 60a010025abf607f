package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// Counts are Postgres's statistics of index reads. An index counts an entry when a scan returns it,
// and a scan when it descends from the root: a probe that finds nothing is a scan without an entry.
type Counts struct {
	// Entries are read from the lists of keys, post_tags and post_langs, or from the list of tags.
	Entries, Scans int
	// Records are entries of the posts' own index: one per fetched record.
	Records int
}

// descentWork is the cost of a descent, in sequentially read entries. The report shows the measured
// value.
const descentWork = 6

// Work is the cost of a page in the lists, in entries. It determines the latency, but does not
// depend on the machine's load.
func (c Counts) Work() int { return c.Entries + descentWork*c.Scans }

func (c Counts) minus(d Counts) Counts {
	return Counts{c.Entries - d.Entries, c.Scans - d.Scans, c.Records - d.Records}
}

func (c Counts) plus(d Counts) Counts {
	return Counts{c.Entries + d.Entries, c.Scans + d.Scans, c.Records + d.Records}
}

// listIndexes are the indexes whose entries Counts has, and recordIndex is that of the records.
var listIndexes = []string{"post_tags_pkey", "post_langs_pkey", "tags_posts_idx"}

const recordIndex = "posts_pkey"

// countOurs counts what the reader reads for do, with Postgres's statistics of each index, without
// looking into the reader. Each count uses its own connection, which reports its numbers when it
// ends. It does the work once and then twice: the difference is the cost of one more, without that
// of a new connection.
func (s *index) countOurs(ctx context.Context, do func(*query.Reader) error) (Counts, error) {
	if err := s.quiesce(ctx); err != nil {
		return Counts{}, err
	}
	var by [2]Counts
	for i := range by {
		before, err := s.statistics(ctx)
		if err != nil {
			return Counts{}, err
		}
		if err := s.withReader(ctx, func(r *query.Reader) error {
			for range i + 1 {
				if err := do(r); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return Counts{}, err
		}
		if err := s.awaitOthersEnd(ctx); err != nil {
			return Counts{}, err
		}
		after, err := s.statistics(ctx)
		if err != nil {
			return Counts{}, err
		}
		by[i] = after.minus(before)
	}
	return by[1].minus(by[0]), nil
}

// quiesce closes every connection that may have unreported numbers.
func (s *index) quiesce(ctx context.Context) error {
	s.reader.Close()
	s.rival.Reset()
	var err error
	if s.reader, err = s.openReader(ctx); err != nil { // which connects when first used
		return err
	}
	if _, err := s.owner.Exec(ctx, "SELECT pg_stat_force_next_flush()"); err != nil {
		return fmt.Errorf("give in the statistics: %w", err)
	}
	return s.awaitOthersEnd(ctx)
}

func (s *index) statistics(ctx context.Context) (c Counts, err error) {
	err = s.owner.QueryRow(ctx, `
		SELECT coalesce(sum(idx_tup_read) FILTER (WHERE indexrelname = ANY($1)), 0), coalesce(sum(idx_scan) FILTER (WHERE indexrelname = ANY($1)), 0),
		       coalesce(sum(idx_tup_read) FILTER (WHERE indexrelname = $2), 0)
		  FROM pg_stat_user_indexes WHERE schemaname = $3`, listIndexes, recordIndex, store.Live).Scan(&c.Entries, &c.Scans, &c.Records)
	if err != nil {
		return c, fmt.Errorf("read the indexes' statistics: %w", err)
	}
	return c, nil
}

// awaitOthersEnd returns when only the owner is connected to the database.
func (s *index) awaitOthersEnd(ctx context.Context) error {
	const every, limit = 2 * time.Millisecond, 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var open int
		err := s.owner.QueryRow(ctx, `
			SELECT count(*) FROM pg_stat_activity
			 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`).Scan(&open)
		if err != nil {
			return fmt.Errorf("wait for connections to end: %w", err)
		}
		if open == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for connections to end: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// countRival counts the same for a rival's statement, in its own transaction.
func (s *index) countRival(ctx context.Context, statement query.Statement) (c Counts, err error) {
	pending := func(conn *pgx.Conn) (c Counts, err error) {
		err = conn.QueryRow(ctx, `
			SELECT coalesce(sum(pg_stat_get_xact_tuples_returned(indexrelid)) FILTER (WHERE indexrelid::regclass::text = ANY($1)), 0),
			       coalesce(sum(pg_stat_get_xact_numscans(indexrelid)) FILTER (WHERE indexrelid::regclass::text = ANY($1)), 0),
			       coalesce(sum(pg_stat_get_xact_tuples_returned(indexrelid)) FILTER (WHERE indexrelid::regclass::text = $2), 0)
			  FROM pg_index WHERE indexrelid::regclass::text = ANY($1 || $2::text)`, listIndexes, recordIndex).Scan(&c.Entries, &c.Scans, &c.Records)
		return c, err
	}
	err = s.rivalConn(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			before, err := pending(tx.Conn())
			if err != nil {
				return err
			}
			if err := drain(ctx, tx, statement); err != nil {
				return err
			}
			after, err := pending(tx.Conn())
			c = after.minus(before)
			return err
		})
	})
	if err != nil {
		return c, fmt.Errorf("count %s: %w", strings.Join(strings.Fields(statement.SQL), " "), err)
	}
	return c, nil
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// drain runs a statement and reads its whole result.
func drain(ctx context.Context, q querier, statement query.Statement) error {
	rows, err := q.Query(ctx, statement.SQL, statement.Args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		if _, err := rows.Values(); err != nil {
			rows.Close()
			return err
		}
	}
	return rows.Err()
}

// minRounds is the minimum number of timings.
const minRounds = 3

// timeInTurns times each of the ways in turn, so that a busy moment of the machine affects all of
// them: as often as the configuration says or until its budget is spent. It returns the medians.
func (s *index) timeInTurns(ctx context.Context, ask ...func(context.Context) error) ([]time.Duration, error) {
	took := make([][]time.Duration, len(ask))
	for _, fn := range ask { // warm caches and plans, not timed
		if err := fn(ctx); err != nil {
			return nil, err
		}
	}
	for rounds, began := 0, time.Now(); rounds < minRounds || rounds < s.cfg.Repeat && time.Since(began) < s.cfg.Budget; rounds++ {
		for i, fn := range ask {
			start := time.Now()
			if err := fn(ctx); err != nil {
				return nil, err
			}
			took[i] = append(took[i], time.Since(start))
		}
	}
	medians := make([]time.Duration, len(ask))
	for i := range took {
		slices.Sort(took[i])
		medians[i] = took[i][len(took[i])/2]
	}
	return medians, nil
}
