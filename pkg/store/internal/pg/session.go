package pg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A connection either leads to the server itself, and then its session is ours until it is closed;
// or there is a pooler in between, such as PgBouncer. A pooler may drop start-up parameters, and
// may run each transaction in a different session, in which none of our settings hold and nothing
// must be left behind. So through a pooler every transaction sets what it relies on, and no
// statement has a name (pgx's mode "exec").

// Purpose says what a connection is for.
type Purpose int

const (
	// Reading works on any server.
	Reading Purpose = iota
	// Writing needs a server that accepts writes.
	Writing
	// Owning is writing in a dedicated session, so without a pooler.
	Owning
)

// minServer is the oldest Postgres whose SQL is used here, as server_version_num.
const minServer = 15_00_00

// Settings are session parameters that statements rely on.
type Settings []Setting

// Setting is one of them.
type Setting struct{ name, value string }

// Set returns a setting.
func Set(name, value string) Setting { return Setting{name, value} }

// BaseSettings returns the settings of every session, which override those of the role, the
// database and the server.
func BaseSettings(schema string) Settings {
	return Settings{
		{"search_path", pgx.Identifier{schema}.Sanitize()},
		{"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"},
	}
}

// local returns statements that set everything for a transaction without taking a snapshot.
func (s Settings) local() string {
	var b strings.Builder
	for _, p := range s {
		value := quoted(p.value)
		if p.name == "search_path" { // an identifier, not a text
			value = p.value
		}
		fmt.Fprintf(&b, "; SET LOCAL %s TO %s", p.name, value)
	}
	return b.String()[len("; "):]
}

// Select returns one statement that sets everything for the transaction or the session.
func (s Settings) Select(local bool) string {
	parts := make([]string, len(s))
	for i, p := range s {
		parts[i] = fmt.Sprintf("set_config(%s, %s, %t)", quoted(p.name), quoted(p.value), local)
	}
	return "SELECT " + strings.Join(parts, ", ")
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// pooledKey is the key of the settings in a connection through a pooler.
const pooledKey = "tagstream pooled"

// PooledSettings returns the settings that each transaction of conn must set, or nil if they are
// set in its session.
func PooledSettings(conn *pgx.Conn) Settings {
	s, _ := conn.PgConn().CustomData()[pooledKey].(Settings)
	return s
}

// Greet checks the other end of a new connection, and prepares the connection. The error is
// ErrUnfit, ErrPooled, or the database's.
func (t Target) Greet(ctx context.Context, conn *pgx.Conn) error {
	// A pool spends more time on a connection than callers wait for it.
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var database, encoding, version string
	var number int
	var pid uint32
	err := conn.QueryRow(ctx, `
		SELECT current_database(), current_setting('server_encoding'), current_setting('server_version'),
		       current_setting('server_version_num')::int, pg_backend_pid()`, pgx.QueryExecModeExec).
		Scan(&database, &encoding, &version, &number, &pid)
	switch {
	case err != nil:
		return fmt.Errorf("check the database server: %w", err)
	case number < minServer:
		return fmt.Errorf("%w: the server is Postgres %s, and 15 or newer is needed", ErrUnfit, version)
	case encoding != "UTF8":
		return fmt.Errorf("%w: database %q is encoded in %s, and UTF8 is needed (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)", ErrUnfit, database, encoding)
	}
	// A pooler returns its own number instead of the server's process id.
	if pid != conn.PgConn().PID() || t.declared {
		if t.purpose == Owning {
			return ErrPooled
		}
		conn.PgConn().CustomData()[pooledKey] = t.Settings
	} else if _, err := conn.Exec(ctx, slices.Concat(t.Settings, keepalives).Select(false)); err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	registerKey(conn.TypeMap())
	return nil
}

// keepalives detect a dead client in about 25 s.
var keepalives = Settings{
	{"tcp_keepalives_idle", fmt.Sprint(int(keepaliveIdle.Seconds()))},
	{"tcp_keepalives_interval", fmt.Sprint(int(keepaliveInterval.Seconds()))},
	{"tcp_keepalives_count", fmt.Sprint(keepaliveCount)},
}

// writable restricts a connection to servers that accept writes: if the address has several hosts,
// the next one is tried. A connection to a standby outlives the moment in which another server
// takes over the address, so a connection that turns out to be read-only later is closed and
// replaced.
func writable(cfg *pgx.ConnConfig) {
	asked := cfg.ValidateConnect
	cfg.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if asked != nil {
			if err := asked(ctx, conn); err != nil {
				return err
			}
		}
		err := pgconn.ValidateConnectTargetSessionAttrsReadWrite(ctx, conn)
		if errors.Is(err, pgconn.ErrReadOnlyConnection) {
			return ErrReadOnly
		}
		return err
	}
	keep := cfg.OnPgError
	cfg.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		return err.Code != codeReadOnly && keep(conn, err)
	}
}

// codeReadOnly is the code of a write in a read-only transaction.
const codeReadOnly = "25006"

// begin starts a transaction with the settings, in one round trip.
func begin(ctx context.Context, conn *pgx.Conn, o pgx.TxOptions, s Settings) (pgx.Tx, error) {
	if len(s) > 0 {
		sql := "BEGIN"
		if o.IsoLevel != "" {
			sql += " ISOLATION LEVEL " + string(o.IsoLevel)
		}
		if o.AccessMode != "" {
			sql += " " + string(o.AccessMode)
		}
		o.BeginQuery = sql + "; " + s.local()
	}
	return conn.BeginTx(ctx, o)
}

// BeginFunc runs fn in a transaction with the settings.
func BeginFunc(ctx context.Context, conn *pgx.Conn, o pgx.TxOptions, s Settings, fn func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, beginner{conn, s}, o, fn)
}

type beginner struct {
	conn *pgx.Conn
	Settings
}

func (b beginner) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	return begin(ctx, b.conn, o, b.Settings)
}

// PlannerSettings make every query a walk along one index with look-ups, independent of the
// planner's estimates (for example of a table that was empty a minute ago) and of the server's own
// settings. With plan_cache_mode above, a connection plans a statement once.
var PlannerSettings = Settings{
	{"jit", "off"},
	{"enable_seqscan", "off"},
	{"enable_bitmapscan", "off"},
	{"enable_hashjoin", "off"},
	{"enable_sort", "off"},
	{"enable_memoize", "off"},
	{"enable_indexscan", "on"},
	{"enable_indexonlyscan", "on"},
	{"enable_nestloop", "on"},
	{"enable_mergejoin", "on"},
}

// SchemaNow is the schema in which names are currently looked up.
const SchemaNow = `SELECT coalesce(to_regnamespace(current_schema())::oid::bigint, 0)`

// Qualified returns a table's name with its schema.
func Qualified(schema, table string) string { return pgx.Identifier{schema, table}.Sanitize() }
