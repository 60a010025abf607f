package query

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// For tests that explain what Reader runs.
var (
	TagsFrom  = tagsFrom
	PrefixEnd = prefixEnd
	// PopularQuery is made of parts.
	PopularQuery = popularQuery
)

const (
	CompletionQuery = completionQuery
	CompletionScan  = completionScan
	RankedQuery     = rankedQuery
	HistoryQuery    = historyQuery
	HistoryScan     = historyScan
	PopularScan     = popularScan
	QuotedQuery     = quotedQuery
)

// Asked runs a statement as a reader's questions are, and returns its first column.
func (r *Reader) Asked(ctx context.Context, sql string) (answer string, err error) {
	err = r.ask(ctx, sql, nil, func(rows pgx.Rows) error { return scanOne(rows, &answer) })
	return answer, err
}
