package query

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Statement is a query as Postgres gets it.
type Statement struct {
	SQL  string
	Args []any
}

// Explain runs a statement that TracePosts showed, in the settings of the reader's
// own connections, and returns what EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) says
// of it. The plan is the generic one that queries use, not one for these
// arguments, which a plain EXPLAIN would make.
func (r *Reader) Explain(ctx context.Context, s Statement) ([]byte, error) {
	const name = "explained"
	var out []byte
	err := r.snapshot(ctx, func(tx pgx.Tx) error {
		conn := tx.Conn()
		prepared, err := conn.Prepare(ctx, name, s.SQL)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Deallocate(ctx, name) }()
		params := make([]string, len(prepared.ParamOIDs))
		for i, oid := range prepared.ParamOIDs {
			text, err := conn.TypeMap().Encode(oid, pgtype.TextFormatCode, s.Args[i], []byte{})
			if err != nil {
				return err
			}
			params[i] = "NULL"
			if text != nil {
				params[i] = "'" + strings.ReplaceAll(string(text), "'", "''") + "'"
			}
		}
		sql := "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE " + name
		if len(params) > 0 {
			sql += "(" + strings.Join(params, ", ") + ")"
		}
		return conn.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).Scan(&out)
	})
	if err != nil {
		return nil, fmt.Errorf("explain a statement: %w", err)
	}
	return out, nil
}
