// Package pg connects to the index's database: directly or through a pooler, as one that
// reads, writes or owns, with the settings that the statements of pkg/store rest on.
package pg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/userinfo"
)

// Live is the schema that is used unless Options have another one.
const Live = "tagstream"

const (
	connectTimeout = 5 * time.Second
	// HoldLockTimeout bounds how long one waits for the live checkpoint's row that a
	// program holds, and HoldTimeout how long one may hold it from the live indexer.
	HoldLockTimeout = 5 * time.Second
	HoldTimeout     = 30 * time.Second
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

const defaultConns = 4

// Target is where Options lead, and what is asked of it.
type Target struct {
	Config  *pgxpool.Config
	purpose Purpose
	Schema  string
	// Settings are those of every session or transaction.
	Settings Settings
	// declared says that the URL says that a pooler is between.
	declared bool
}

// Target checks the options and makes a pool's configuration of them.
func (o Options) Target(p Purpose, more ...Setting) (Target, error) {
	cfg, err := parseURL(o.URL)
	if err != nil {
		return Target{}, err
	}
	if o.Password != "" {
		cfg.ConnConfig.Password = o.Password
	}
	if o.MaxConns > 0 {
		cfg.MaxConns = int32(o.MaxConns)
	} else if !poolSized(o.URL) {
		cfg.MaxConns = int32(cmp.Or(o.DefaultConns, defaultConns))
	}
	t := Target{Config: cfg, purpose: p, Schema: cmp.Or(o.Schema, Live)}
	t.Settings = append(BaseSettings(t.Schema), more...)
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
	if p != Reading {
		writable(conn)
	}
	return t, nil
}

// Connect makes one connection, for statements that are not run often.
func (t Target) Connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := t.Config.ConnConfig.Copy()
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	if err := t.Greet(ctx, conn); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	return conn, nil
}

// Do runs fn with a connection of its own.
func Do(ctx context.Context, o Options, p Purpose, fn func(conn *pgx.Conn) error) error {
	t, err := o.Target(p)
	if err != nil {
		return err
	}
	conn, err := t.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return fn(conn)
}

// parseURL reads a database's URL. The error says nothing of it that may be secret.
func parseURL(url string) (*pgxpool.Config, error) {
	if strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://") {
		if err := userinfo.Check(url, "/"); err != nil {
			return nil, err
		}
	} else if scheme, _, ok := strings.Cut(url, "://"); ok && !strings.ContainsAny(scheme, " =") {
		return nil, errOtherScheme // pgx takes some such for a list of parameters
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err == nil {
		return cfg, nil
	}
	// pgx's error quotes the URL. One of the URL without its user-info cannot quote
	// that, and says the same unless the fault is there.
	if rest, ok := userinfo.Strip(url); ok {
		if _, err := pgxpool.ParseConfig(rest); err != nil {
			return nil, err
		}
	}
	if name := wrongParameter(url); name != "" {
		return nil, fmt.Errorf("has a value of %s that Postgres does not know", name)
	}
	return nil, errBadURL
}

var (
	parameter = regexp.MustCompile(`(\w+)\s*=\s*[^\s&'\\]+`)
	// harmless are parameters of which one that is wrong may be named.
	harmless = []string{"sslmode", "port", "connect_timeout", "target_session_attrs", "pool_max_conns", "pool_min_conns",
		"pool_max_conn_lifetime", "pool_max_conn_idle_time", "default_query_exec_mode", "statement_cache_capacity"}
)

// wrongParameter names a parameter whose value is wrong whatever else there is, "" where
// there is none.
func wrongParameter(url string) string {
	for _, m := range parameter.FindAllStringSubmatch(url, -1) {
		if !slices.Contains(harmless, m[1]) {
			continue
		}
		if _, err := pgxpool.ParseConfig("host=any " + m[0]); err != nil {
			return m[1]
		}
	}
	return ""
}

var errOtherScheme = errors.New("begins with another scheme than postgres:// or postgresql://")

var errBadURL = errors.New("is not a URL such as postgres://user:password@host:5432/database; in a password each of : / @ % ? # is written as % and two digits")

// poolSized reports whether a URL that was read before says how many connections its
// pool has.
func poolSized(url string) bool {
	cfg, err := pgx.ParseConfig(url)
	return err == nil && cfg.RuntimeParams["pool_max_conns"] != ""
}

// Check reports what is wrong with the options, without connecting.
func (o Options) Check() error {
	_, err := o.Target(Reading)
	return err
}

// Millis is a duration as settings have it.
func Millis(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// registerKey lets event.Key travel as uuid, alone and in arrays.
func registerKey(m *pgtype.Map) {
	m.RegisterDefaultPgType(event.Key{}, "uuid")
	m.RegisterDefaultPgType([]event.Key{}, "_uuid")
}

// IsCode reports whether err is a Postgres error of one of these classes
// (two characters) or codes (five).
func IsCode(err error, codes ...string) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if strings.HasPrefix(e.Code, c) {
			return true
		}
	}
	return false
}
