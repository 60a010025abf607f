package lab

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/test/site"
)

const (
	// statements is the extension that counts how often Postgres plans.
	statements = "pg_stat_statements"
	// rivalTimeout bounds one statement of a rival.
	rivalTimeout = 5 * time.Minute
)

// startPostgres starts a private server in dir. Autovacuum is off, so that no figure depends on its
// timing: the lab vacuums when a deployment would have.
func startPostgres(ctx context.Context, dir string) (*site.Postgres, error) {
	binaries, err := site.FindPostgres(ctx, dir)
	if err != nil {
		return nil, err
	}
	pg, err := site.StartPostgres(ctx, binaries, dir, statements, map[string]string{
		"autovacuum": "off", "max_wal_size": "8GB", "maintenance_work_mem": "512MB", statements + ".track_planning": "on",
	})
	if err == nil && pg.Extension {
		err = pg.Exec(ctx, "GRANT pg_read_all_stats TO "+site.OwnerRole+"; GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO "+site.OwnerRole)
	}
	return pg, err
}

// index is an open index of the lab.
type index struct {
	cfg Config
	pg  *site.Postgres
	log *slog.Logger

	reader *query.Reader
	// rival runs rivals' statements, as the same role but with Postgres's default planner settings.
	rival *pgxpool.Pool
	// owner vacuums and reads statistics.
	owner *pgxpool.Pool

	corpus *corpus
	drift  []*write.Post // the posts with driftTag
	// missed are the missed bars.
	missed []error
}

// openIndex connects. The caller must call close, also after a failure.
func openIndex(ctx context.Context, cfg Config, pg *site.Postgres) (_ *index, err error) {
	s := &index{cfg: cfg, pg: pg, log: cfg.Logger}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.reader, err = s.openReader(ctx); err != nil {
		return nil, err
	}
	if s.rival, err = openPool(ctx, pg.URL(site.APIRole), rivalTimeout); err != nil {
		return nil, err
	}
	s.owner, err = openPool(ctx, pg.URL(site.OwnerRole), 0)
	return s, err
}

// openReader opens a reader with one connection, so that every page uses the same prepared
// statements and caches.
func (s *index) openReader(ctx context.Context) (*query.Reader, error) {
	return query.Open(ctx, store.Options{URL: s.pg.URL(site.APIRole), Program: "lab", MaxConns: 1})
}

// miss records a missed bar if err is not nil. The run continues.
func (s *index) miss(err error, format string, args ...any) {
	if err != nil {
		s.missed = append(s.missed, fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err))
	}
}

// withReader runs fn with its own reader.
func (s *index) withReader(ctx context.Context, fn func(*query.Reader) error) error {
	r, err := s.openReader(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	return fn(r)
}

// withWriter runs fn with a writer that has the lease. There is no writer otherwise, so that none
// of its connections reports statistics while others are counted.
func (s *index) withWriter(ctx context.Context, fn func(*writer) error) error {
	w, err := write.Open(ctx, store.Options{URL: s.pg.URL(site.IndexerRole), Program: "lab", MaxConns: 1}, "lab")
	if err != nil {
		return err
	}
	defer w.Close()
	cp, err := w.Acquire(ctx)
	if err != nil {
		return err
	}
	return fn(&writer{w, cp.Seq})
}

func openPool(ctx context.Context, url string, timeout time.Duration) (*pgxpool.Pool, error) {
	cfg, err := poolConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.RuntimeParams["statement_timeout"] = fmt.Sprint(timeout.Milliseconds()) // 0 is none
	return newPool(ctx, cfg)
}

// poolConfig returns the configuration of a pool with one connection, like the store's except for
// the planner's settings.
func poolConfig(url string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	cfg.MaxConns = 1
	cfg.ConnConfig.RuntimeParams["search_path"] = store.Live
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		registerKeys(conn.TypeMap())
		return nil
	}
	return cfg, nil
}

func newPool(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return pool, nil
}

// rivalConn runs fn on the rivals' connection.
func (s *index) rivalConn(ctx context.Context, fn func(*pgx.Conn) error) error {
	return s.rival.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return fn(c.Conn()) })
}

// registerKeys encodes keys as uuid, like the store.
func registerKeys(m *pgtype.Map) {
	for value, name := range map[any]string{event.Key{}: "uuid", [16]byte{}: "uuid"} {
		m.RegisterDefaultPgType(value, name)
	}
	m.RegisterDefaultPgType([]event.Key{}, "_uuid")
}

func (s *index) close() {
	if s.reader != nil {
		s.reader.Close()
	}
	for _, pool := range []*pgxpool.Pool{s.rival, s.owner} {
		if pool != nil {
			pool.Close()
		}
	}
}
