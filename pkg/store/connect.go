package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/service"
)

// The schemas of a database.
const (
	// Live is the schema that the API reads.
	Live = "tagstream"
	// Rebuilding is the one that a rebuild fills.
	Rebuilding = "tagstream_rebuild"
	// Retired is the former live one, between a switch and its removal.
	Retired = "tagstream_retired"
)

const (
	connectTimeout = 5 * time.Second
	// A reader's statement is a seek; one that takes this long is a fault.
	readerStatementTimeout = 5 * time.Second
	// A writer that stopped in mid-transaction holds the checkpoint's lock:
	// the server ends it so that another can take over.
	writerIdleTimeout = 15 * time.Second
	// Keepalives find a dead network in about 25 s, from either end.
	keepaliveIdle     = 10 * time.Second
	keepaliveInterval = 5 * time.Second
	keepaliveCount    = 3
)

// Options say how to connect.
type Options struct {
	// URL as pgx reads it, several hosts allowed. Its default_query_exec_mode, if it
	// is not cache_statement, says that a pooler is between where nothing else does.
	URL string
	// Password, if not "", replaces the URL's.
	Password string
	// Schema is Live unless set.
	Schema string
	// MaxConns bounds the pool; 0 means the URL's pool_max_conns or, without that,
	// DefaultConns, of which 0 means 4.
	MaxConns, DefaultConns int
	// Program names the connections in pg_stat_activity.
	Program string
}

const (
	defaultConns = 4
	// maxConns is more than any server takes.
	maxConns = 10_000
)

// OptionsFrom reads the options from a program's settings. Without a URL, which
// not every program needs, they are the zero value; bad ones are reported by
// v.Err.
func OptionsFrom(v *service.Values, program string) Options {
	o := Options{URL: v.String("DATABASE_URL"), Password: v.Secret("DATABASE_PASSWORD_FILE"), Program: program}
	if v.IsSet("DATABASE_MAX_CONNS") {
		o.MaxConns = v.Int("DATABASE_MAX_CONNS", 1, maxConns)
	}
	if o.URL == "" {
		return Options{}
	}
	if err := o.Check(); err != nil {
		v.Fail("DATABASE_URL", err)
	}
	return o
}

// target is where Options lead, and what is asked of it.
type target struct {
	cfg     *pgxpool.Config
	purpose purpose
	schema  string
	// settings are those of every session or transaction.
	settings settings
	// declared says that the URL says that a pooler is between.
	declared bool
}

// target checks the options and makes a pool's configuration of them.
func (o Options) target(p purpose, more ...setting) (target, error) {
	cfg, err := parseURL(o.URL)
	if err != nil {
		return target{}, err
	}
	if o.Password != "" {
		cfg.ConnConfig.Password = o.Password
	}
	if o.MaxConns > 0 {
		cfg.MaxConns = int32(o.MaxConns)
	} else if !poolSized(o.URL) {
		cfg.MaxConns = int32(cmp.Or(o.DefaultConns, defaultConns))
	}
	t := target{cfg: cfg, purpose: p, schema: cmp.Or(o.Schema, Live)}
	t.settings = append(baseSettings(t.schema), more...)
	conn := cfg.ConnConfig
	if conn.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement || conn.StatementCacheCapacity == 0 {
		t.declared = true
		conn.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	conn.ConnectTimeout = connectTimeout
	// Only what every pooler passes on is asked for when a connection begins; the
	// rest, which safety rests on, is set when it is there.
	params := conn.RuntimeParams
	params["client_encoding"] = "UTF8"
	params["application_name"] = strings.TrimSpace("tagstream " + o.Program)
	params["timezone"] = "UTC"
	conn.DialFunc = (&net.Dialer{Timeout: connectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepaliveIdle, Interval: keepaliveInterval, Count: keepaliveCount}}).DialContext
	if p != reading {
		writable(conn)
	}
	return t, nil
}

// connect makes one connection, for statements that are not run often.
func (t target) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := t.cfg.ConnConfig.Copy()
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	if err := t.greet(ctx, conn); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	return conn, nil
}

// parseURL reads a database's URL. The error says nothing of it that may be secret.
func parseURL(url string) (*pgxpool.Config, error) {
	if strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://") {
		if err := service.CheckUserInfo(url, "/"); err != nil {
			return nil, err
		}
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err == nil {
		return cfg, nil
	}
	// pgx's error quotes the URL. One of the URL without its user-info cannot quote
	// that, and says the same unless the fault is there.
	if rest, ok := service.WithoutUserInfo(url); ok {
		if _, err := pgxpool.ParseConfig(rest); err != nil {
			return nil, err
		}
	}
	return nil, errBadURL
}

var errBadURL = errors.New("is not a URL such as postgres://user:password@host:5432/database; in a password each of : / @ % ? # is written as % and two digits")

// poolSized reports whether a URL that was read before says how many connections its
// pool has.
func poolSized(url string) bool {
	cfg, err := pgx.ParseConfig(url)
	return err == nil && cfg.RuntimeParams["pool_max_conns"] != ""
}

// Check reports what is wrong with the options, without connecting.
func (o Options) Check() error {
	_, err := o.target(reading)
	return err
}

func millis(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// registerKey lets event.Key travel as uuid, alone and in arrays.
func registerKey(m *pgtype.Map) {
	m.RegisterDefaultPgType(event.Key{}, "uuid")
	m.RegisterDefaultPgType([]event.Key{}, "_uuid")
}

// isCode reports whether err is a Postgres error of one of these classes
// (two characters) or codes (five).
func isCode(err error, codes ...string) bool {
	var pg *pgconn.PgError
	if !asPgError(err, &pg) {
		return false
	}
	for _, c := range codes {
		if strings.HasPrefix(pg.Code, c) {
			return true
		}
	}
	return false
}
