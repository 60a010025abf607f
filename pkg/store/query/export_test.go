package query

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// The statements of Reader, for tests that explain them.
var (
	TagsFrom     = tagsFrom
	PrefixEnd    = prefixEnd
	PopularQuery = popularQuery
	QuotedQuery  = quotedQuery
	HistoryQuery = historyQuery
)

const (
	CompletionQuery = completionQuery
	CompletionScan  = completionScan
	RankedQuery     = rankedQuery
	HistoryScan     = historyScan
	PopularScan     = popularScan
)

// QueryText runs a statement as Reader's queries run, and returns its first column.
func (r *Reader) QueryText(ctx context.Context, sql string) (answer string, err error) {
	err = r.query(ctx, sql, nil, func(rows pgx.Rows) error { return scanOne(rows, &answer) })
	return answer, err
}
