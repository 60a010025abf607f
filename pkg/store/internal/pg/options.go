// Package pg connects to the index's database, directly or through a pooler, for reading, writing
// or owning, with the settings that the statements of pkg/store rely on.
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
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/userinfo"
)

// Live is the schema that is used unless Options name another one.
const Live = "tagstream"

const (
	connectTimeout = 5 * time.Second
	// HoldLockTimeout bounds the wait for the live checkpoint's row while another program holds it,
	// and HoldTimeout how long a program may hold it from the live indexer.
	HoldLockTimeout = 5 * time.Second
	HoldTimeout     = 30 * time.Second
	// Keepalives detect a dead network in about 25 s, on both ends.
	keepaliveIdle     = 10 * time.Second
	keepaliveInterval = 5 * time.Second
	keepaliveCount    = 3
)

// Options say how to connect.
type Options struct {
	// URL is a URL for pgx; it may have several hosts. A default_query_exec_mode other than
	// cache_statement declares a pooler that cannot be detected.
	URL string
	// Password, if not "", replaces that of the URL.
	Password string
	// Schema defaults to Live.
	Schema string
	// MaxConns bounds the pool; 0 means the URL's pool_max_conns or, without that, DefaultConns,
	// which defaults to 4.
	MaxConns, DefaultConns int
	// Program is the name of the connections in pg_stat_activity.
	Program string
}

const defaultConns = 4

// Target is where Options lead, and what the connection is for.
type Target struct {
	Config  *pgxpool.Config
	purpose Purpose
	Schema  string
	// Settings are those of every session or transaction.
	Settings Settings
	// declared reports that the URL declares a pooler.
	declared bool
}

// Target checks the options and converts them to a pool's configuration.
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
	// The start-up message has only what every pooler passes on; the rest, which safety depends on,
	// is set afterwards.
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

// Connect opens one connection, for statements that do not run often.
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

// Do runs fn on a separate connection.
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

// parseURL parses a database URL. The error contains no secrets.
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
	// pgx's error quotes the URL. Parsed without its user-info, the URL gives the same error unless
	// the fault is there.
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
	// harmless are parameters that errors may name.
	harmless = []string{"sslmode", "port", "connect_timeout", "target_session_attrs", "pool_max_conns", "pool_min_conns",
		"pool_max_conn_lifetime", "pool_max_conn_idle_time", "default_query_exec_mode", "statement_cache_capacity"}
)

// wrongParameter names a parameter whose value is wrong regardless of the rest, or returns "".
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

// poolSized reports whether a valid URL sets the size of its pool.
func poolSized(url string) bool {
	cfg, err := pgx.ParseConfig(url)
	return err == nil && cfg.RuntimeParams["pool_max_conns"] != ""
}

// Check returns what is wrong with the options, without connecting.
func (o Options) Check() error {
	_, err := o.Target(Reading)
	return err
}

// Millis formats a duration for a setting.
func Millis(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// registerKey lets event.Key travel as uuid, alone and in arrays.
func registerKey(m *pgtype.Map) {
	m.RegisterDefaultPgType(event.Key{}, "uuid")
	m.RegisterDefaultPgType([]event.Key{}, "_uuid")
}
