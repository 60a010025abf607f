package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/pgserver"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
)

const (
	ownerRole  = "lab_owner"
	writerRole = "lab_writer"
	readerRole = "lab_reader"

	pgStop = time.Minute
	// statements is the extension that counts how often Postgres plans.
	statements = "pg_stat_statements"
	// rivalTimeout bounds one statement of the ways that are not ours.
	rivalTimeout = 5 * time.Minute
)

// urls are how the lab reaches its database, in the roles of a deployment.
type urls struct {
	// owner makes the schema and vacuums, writer changes rows, reader selects.
	owner, writer, reader string
	// statements says that pg_stat_statements is loaded and counts plans.
	statements bool
}

// startPostgres starts a private server in dir. Nothing runs in it but what the lab does: autovacuum is off, so that no
// figure depends on when it comes by, and the lab vacuums where a deployment would have.
func startPostgres(ctx context.Context, dir string) (_ *pgserver.Server, _ urls, err error) {
	quiet := slog.New(slog.DiscardHandler)
	binaries, err := pgserver.Find(ctx, pgserver.FindOptions{Dir: dir, Install: true, Logger: quiet})
	if err != nil {
		return nil, urls{}, err
	}
	cfg := pgserver.Config{
		Dir: dir, Binaries: binaries, Database: "tagstream", Owner: ownerRole, Roles: []string{ownerRole, writerRole, readerRole},
		Settings: map[string]string{"autovacuum": "off", "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}, Logger: quiet,
	}
	pg, err := pgserver.Start(ctx, cfg)
	if err != nil {
		return nil, urls{}, err
	}
	// Not every installation has the extension, and a server does not start with a library that is not there: ask first.
	has, err := hasExtension(ctx, pg.URL(pgserver.Superuser), statements)
	if err == nil && has {
		if err = pg.Stop(ctx); err != nil {
			return nil, urls{}, err
		}
		cfg.Settings["shared_preload_libraries"] = statements
		cfg.Settings[statements+".track_planning"] = "on"
		if pg, err = pgserver.Start(ctx, cfg); err != nil {
			return nil, urls{}, err
		}
	}
	if err == nil {
		err = prepareRoles(ctx, pg.URL(pgserver.Superuser), has)
	}
	if err != nil {
		return nil, urls{}, errors.Join(err, pg.Stop(ctx))
	}
	return pg, urls{owner: pg.URL(ownerRole), writer: pg.URL(writerRole), reader: pg.URL(readerRole), statements: has}, nil
}

func hasExtension(ctx context.Context, url, name string) (has bool, err error) {
	err = withConn(ctx, url, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)", name).Scan(&has)
	})
	if err != nil {
		return false, fmt.Errorf("look for extension %s: %w", name, err)
	}
	return has, nil
}

func prepareRoles(ctx context.Context, superuser string, extension bool) error {
	if err := store.CreateRoles(ctx, store.Options{URL: superuser}, writerRole, readerRole); err != nil {
		return err
	}
	return withConn(ctx, superuser, func(conn *pgx.Conn) error {
		if !extension {
			return nil
		}
		if _, err := conn.Exec(ctx, "CREATE EXTENSION "+statements); err != nil {
			return fmt.Errorf("create extension %s: %w", statements, err)
		}
		if _, err := conn.Exec(ctx, "GRANT pg_read_all_stats TO "+ownerRole+"; GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO "+ownerRole); err != nil {
			return fmt.Errorf("let %s read %s: %w", ownerRole, statements, err)
		}
		return nil
	})
}

func withConn(ctx context.Context, url string, fn func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return fn(conn)
}

// site is an index that is open to the lab.
type site struct {
	cfg  Config
	urls urls
	log  *slog.Logger

	reader *query.Reader
	// rival runs what is not ours, as the same role but under Postgres's own settings for the planner.
	rival *pgxpool.Pool
	// owner vacuums and reads statistics.
	owner *pgxpool.Pool

	corpus *corpus
	drift  []*write.Post // the posts with driftTag
	// missed are the bars that were not met.
	missed []error
}

// openSite migrates the database and connects. Its owner calls close, also after a failure.
func openSite(ctx context.Context, cfg Config, at urls) (_ *site, err error) {
	s := &site{cfg: cfg, urls: at, log: cfg.Logger}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := store.Migrate(ctx, store.Options{URL: at.owner}, s.log); err != nil {
		return nil, err
	}
	if s.reader, err = s.openReader(ctx); err != nil {
		return nil, err
	}
	if s.rival, err = openPool(ctx, at.reader, rivalTimeout); err != nil {
		return nil, err
	}
	s.owner, err = openPool(ctx, at.owner, 0)
	return s, err
}

// openReader opens a reader with one connection, so that what is prepared and cached is the same for every page.
func (s *site) openReader(ctx context.Context) (*query.Reader, error) {
	return query.Open(ctx, store.Options{URL: s.urls.reader, Program: "lab", MaxConns: 1})
}

// miss notes a bar that was not met, if err says so. The run goes on: its report shows the rest.
func (s *site) miss(err error, format string, args ...any) {
	if err != nil {
		s.missed = append(s.missed, fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err))
	}
}

// withReader runs fn with a reader of its own.
func (s *site) withReader(ctx context.Context, fn func(*query.Reader) error) error {
	r, err := s.openReader(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	return fn(r)
}

// withWriter runs fn with a writer that has the lease. Between writes there is none, so that no connection of it has
// statistics to give in while others are counted.
func (s *site) withWriter(ctx context.Context, fn func(*writer) error) error {
	w, err := write.Open(ctx, store.Options{URL: s.urls.writer, Program: "lab", MaxConns: 1}, "lab")
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

// poolConfig is for one connection, as the store's are but for the planner's settings.
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

// rivalConn runs fn on the one connection for what is not ours.
func (s *site) rivalConn(ctx context.Context, fn func(*pgx.Conn) error) error {
	return s.rival.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return fn(c.Conn()) })
}

// registerKeys lets keys travel as uuid, as the store does.
func registerKeys(m *pgtype.Map) {
	for value, name := range map[any]string{event.Key{}: "uuid", [16]byte{}: "uuid"} {
		m.RegisterDefaultPgType(value, name)
	}
	m.RegisterDefaultPgType([]event.Key{}, "_uuid")
}

func (s *site) close() {
	if s.reader != nil {
		s.reader.Close()
	}
	for _, pool := range []*pgxpool.Pool{s.rival, s.owner} {
		if pool != nil {
			pool.Close()
		}
	}
}

func postgresDir(dir string) string { return filepath.Join(dir, "postgres") }
