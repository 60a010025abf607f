package query

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Statement is a query as sent to Postgres.
type Statement struct {
	SQL  string
	Args []any
}

// Explain runs a statement that TracePosts reported, with the settings of the reader's connections,
// and returns the result of EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON). The plan is the generic one
// that queries use, unlike that of a plain EXPLAIN, which depends on the arguments.
func (r *Reader) Explain(ctx context.Context, s Statement) ([]byte, error) {
	var out []byte
	err := r.snapshot(ctx, func(tx pgx.Tx) error {
		return prepared(ctx, tx.Conn(), s, func(name string, _ []uint32, args []string) error {
			sql := "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE " + name
			if len(args) > 0 {
				sql += "(" + strings.Join(args, ", ") + ")"
			}
			return tx.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).Scan(&out)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("explain a statement: %w", err)
	}
	return out, nil
}

// Literal returns a statement that TracePosts reported, with its arguments inserted so that other
// clients can run it.
func (r *Reader) Literal(ctx context.Context, s Statement) (sql string, err error) {
	sql = s.SQL
	err = r.snapshot(ctx, func(tx pgx.Tx) error {
		return prepared(ctx, tx.Conn(), s, func(_ string, types []uint32, args []string) error {
			for i := len(args) - 1; i >= 0; i-- { // $10 before $1
				var name string
				if err := tx.QueryRow(ctx, "SELECT format_type($1, NULL)", types[i]).Scan(&name); err != nil {
					return err
				}
				sql = strings.ReplaceAll(sql, fmt.Sprint("$", i+1), args[i]+"::"+name)
			}
			return nil
		})
	})
	if err != nil {
		return "", fmt.Errorf("insert a statement's arguments: %w", err)
	}
	return sql, nil
}

// prepared calls fn with the name of a prepared statement, and the types and literals of its
// arguments.
func prepared(ctx context.Context, conn *pgx.Conn, s Statement, fn func(name string, types []uint32, args []string) error) error {
	const name = "explained"
	p, err := conn.Prepare(ctx, name, s.SQL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Deallocate(ctx, name) }()
	args := make([]string, len(p.ParamOIDs))
	for i, oid := range p.ParamOIDs {
		text, err := conn.TypeMap().Encode(oid, pgtype.TextFormatCode, s.Args[i], []byte{})
		if err != nil {
			return err
		}
		args[i] = "NULL"
		if text != nil {
			args[i] = "'" + strings.ReplaceAll(string(text), "'", "''") + "'"
		}
	}
	return fn(name, p.ParamOIDs, args)
}
