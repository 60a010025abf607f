package store

import (
	"context"
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
	// URL as pgx reads it, several hosts allowed.
	URL string
	// Password, if not "", replaces the URL's.
	Password string
	// Schema is Live unless set.
	Schema string
	// MaxConns bounds the pool; 0 means 4.
	MaxConns int
	// Program names the connections in pg_stat_activity.
	Program string
}

// OptionsFrom reads the options from a program's settings. Without a URL, which
// not every program needs, they are the zero value; bad ones are reported by
// v.Err.
func OptionsFrom(v *service.Values, program string) Options {
	o := Options{URL: v.String("DATABASE_URL"), Password: v.Secret("DATABASE_PASSWORD_FILE"), Program: program}
	if o.URL == "" {
		return Options{}
	}
	if err := o.Check(); err != nil {
		v.Fail("DATABASE_URL", err)
	}
	return o
}

// config checks the options and makes a pool's configuration of them.
func (o Options) config() (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		// pgx's error leaves the password out, and the rest of the URL in.
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	if o.Password != "" {
		cfg.ConnConfig.Password = o.Password
	}
	if o.Schema == "" {
		o.Schema = Live
	}
	cfg.MaxConns = int32(o.MaxConns)
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 4
	}
	cfg.ConnConfig.ConnectTimeout = connectTimeout
	p := cfg.ConnConfig.RuntimeParams
	p["search_path"] = o.Schema
	p["application_name"] = strings.TrimSpace("tagstream " + o.Program)
	p["timezone"] = "UTC"
	p["tcp_keepalives_idle"] = fmt.Sprint(int(keepaliveIdle.Seconds()))
	p["tcp_keepalives_interval"] = fmt.Sprint(int(keepaliveInterval.Seconds()))
	p["tcp_keepalives_count"] = fmt.Sprint(keepaliveCount)
	cfg.ConnConfig.DialFunc = (&net.Dialer{Timeout: connectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepaliveIdle, Interval: keepaliveInterval, Count: keepaliveCount}}).DialContext
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		registerKey(conn.TypeMap())
		return nil
	}
	return cfg, nil
}

// Check reports what is wrong with the options, without connecting.
func (o Options) Check() error {
	_, err := o.config()
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
