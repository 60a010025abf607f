package store

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
// another session, in which nothing of ours is set and nothing must be left. So
// there every transaction brings the settings that it rests on, and no statement
// has a name (pgx's mode "exec").

// purpose is what a connection is for.
type purpose int

const (
	// reading is good on any server.
	reading purpose = iota
	// writing needs one that takes writes.
	writing
	// owning is writing that needs a session of its own, so no pooler.
	owning
)

// minServer is the oldest Postgres whose SQL is used here, as server_version_num.
const minServer = 15_00_00

// errPooled is returned where a pooler is between and must not be.
var errPooled = errors.New("the address leads to a connection pooler such as PgBouncer, and this needs a session of its own: connect directly to Postgres")

// errOtherEnd is returned where a pool's new connection ends at something else than
// those before: the next one is made for that.
var errOtherEnd = errors.New("the database's address leads to a pooler now, or not to one any more; asking again")

// settings are parameters of a session that what is done in it rests on.
type settings []setting

type setting struct{ name, value string }

// baseSettings are those of every session, whatever the role, the database or the
// server says.
func baseSettings(schema string) settings {
	return settings{
		{"search_path", pgx.Identifier{schema}.Sanitize()},
		{"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"},
	}
}

// local is a list of statements that set all in a transaction, and take no snapshot.
func (s settings) local() string {
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

// selects is one statement that sets all, in the transaction or in the session.
func (s settings) selects(local bool) string {
	parts := make([]string, len(s))
	for i, p := range s {
		parts[i] = fmt.Sprintf("set_config(%s, %s, %t)", quoted(p.name), quoted(p.value), local)
	}
	return "SELECT " + strings.Join(parts, ", ")
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// pooledKey is where a connection through a pooler has its settings.
const pooledKey = "tagstream pooled"

// pooledSettings returns what each transaction of conn has to set, nil where its
// session is set already.
func pooledSettings(conn *pgx.Conn) settings {
	s, _ := conn.PgConn().CustomData()[pooledKey].(settings)
	return s
}

// greet asks a new connection what is at its other end, and makes it ready. The
// error is an ErrUnfit, errPooled, or the database's.
func (t target) greet(ctx context.Context, conn *pgx.Conn) error {
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
		if t.purpose == owning {
			return errPooled
		}
		conn.PgConn().CustomData()[pooledKey] = t.settings
	} else if _, err := conn.Exec(ctx, slices.Concat(t.settings, keepalives).selects(false)); err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	registerKey(conn.TypeMap())
	return nil
}

// keepalives find a dead client in about 25 s.
var keepalives = settings{
	{"tcp_keepalives_idle", fmt.Sprint(int(keepaliveIdle.Seconds()))},
	{"tcp_keepalives_interval", fmt.Sprint(int(keepaliveInterval.Seconds()))},
	{"tcp_keepalives_count", fmt.Sprint(keepaliveCount)},
}

// writable lets a connection be made to a server that takes writes only: where the
// address has several, the next one is tried. A standby's connection outlives the
// moment in which another server takes its place under the address, so one that
// turns out to be read-only later is closed, and looked for anew.
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
func begin(ctx context.Context, conn *pgx.Conn, o pgx.TxOptions, s settings) (pgx.Tx, error) {
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

// beginFunc runs fn in a transaction with the settings.
func beginFunc(ctx context.Context, conn *pgx.Conn, o pgx.TxOptions, s settings, fn func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, beginner{conn, s}, o, fn)
}

type beginner struct {
	conn *pgx.Conn
	settings
}

func (b beginner) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	return begin(ctx, b.conn, o, b.settings)
}

// queueSnapshot begins a batch that reads one unchanging state, in a transaction that
// cannot write. Through a pooler it also notes the schema that the batch begins with.
func queueSnapshot(batch *pgx.Batch, conn *pgx.Conn) {
	batch.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	if s := pooledSettings(conn); s != nil {
		batch.Queue(s.selects(true))
		batch.Queue(schemaNow).QueryRow(func(row pgx.Row) error {
			var id int64
			err := row.Scan(&id)
			conn.PgConn().CustomData()[schemaKey] = id
			return err
		})
	}
}
