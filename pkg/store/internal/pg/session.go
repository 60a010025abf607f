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

// A connection either ends at the server itself, and then its session is ours
// until it is closed; or there is a pooler between, such as PgBouncer. That one may
// drop what a connection asks for when it begins, and may give each transaction to
// another session, in which none of our settings hold and nothing must be left. So
// there every transaction brings the settings that it rests on, and no statement
// has a name (pgx's mode "exec").

// Purpose is what a connection is for.
type Purpose int

const (
	// Reading is good on any server.
	Reading Purpose = iota
	// Writing needs one that takes writes.
	Writing
	// Owning is writing that needs a session of its own, so no pooler.
	Owning
)

// minServer is the oldest Postgres whose SQL is used here, as server_version_num.
const minServer = 15_00_00

// Settings are parameters of a session that what is done in it rests on.
type Settings []Setting

// Setting is one of them.
type Setting struct{ name, value string }

// Set gives a parameter a value.
func Set(name, value string) Setting { return Setting{name, value} }

// BaseSettings are those of every session, whatever the role, the database or the
// server says.
func BaseSettings(schema string) Settings {
	return Settings{
		{"search_path", pgx.Identifier{schema}.Sanitize()},
		{"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"},
	}
}

// local is a list of statements that set all in a transaction, and take no snapshot.
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

// Select is one statement that sets all, in the transaction or in the session.
func (s Settings) Select(local bool) string {
	parts := make([]string, len(s))
	for i, p := range s {
		parts[i] = fmt.Sprintf("set_config(%s, %s, %t)", quoted(p.name), quoted(p.value), local)
	}
	return "SELECT " + strings.Join(parts, ", ")
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// pooledKey is where a connection through a pooler has its settings.
const pooledKey = "tagstream pooled"

// PooledSettings returns what each transaction of conn has to set, nil where its
// session is set already.
func PooledSettings(conn *pgx.Conn) Settings {
	s, _ := conn.PgConn().CustomData()[pooledKey].(Settings)
	return s
}

// Greet asks a new connection what is at its other end, and makes it ready. The
// error is an ErrUnfit, ErrPooled, or the database's.
func (t Target) Greet(ctx context.Context, conn *pgx.Conn) error {
	// A pool makes connections for longer than their askers wait.
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
		return fmt.Errorf("ask the database what it is: %w", err)
	case number < minServer:
		return fmt.Errorf("%w: the server is Postgres %s, and 15 or newer is needed", ErrUnfit, version)
	case encoding != "UTF8":
		return fmt.Errorf("%w: database %q is encoded in %s, and UTF8 is needed (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)", ErrUnfit, database, encoding)
	}
	// A pooler has no process of the server's to name: it gives a number of its own.
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

// keepalives find a dead client in about 25 s.
var keepalives = Settings{
	{"tcp_keepalives_idle", fmt.Sprint(int(keepaliveIdle.Seconds()))},
	{"tcp_keepalives_interval", fmt.Sprint(int(keepaliveInterval.Seconds()))},
	{"tcp_keepalives_count", fmt.Sprint(keepaliveCount)},
}

// writable lets a connection be made to a server that takes writes only: where the
// address has several, the next one is tried. A standby's connection outlives the
// moment in which another server takes its place under the address, so one that
// turns out to be read-only later is closed, and looked for again.
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

// codeReadOnly is that of a write in a transaction that cannot write.
const codeReadOnly = "25006"

// begin begins a transaction with the settings, in one round trip.
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

// PlannerSettings say that every query here is a walk along one index with
// look-ups beside it, rather than let the planner's estimates (of a table that was
// empty a minute ago, say) or the server's own settings choose another plan; with
// the mode above, a connection plans a statement once.
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

// SchemaNow is the schema that names are looked up in at this moment.
const SchemaNow = `SELECT coalesce(to_regnamespace(current_schema())::oid::bigint, 0)`

// Qualified is a table's name with its schema's.
func Qualified(schema, table string) string { return pgx.Identifier{schema, table}.Sanitize() }
