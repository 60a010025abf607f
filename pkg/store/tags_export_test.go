package store

// For tests that explain what Reader runs.
var (
	TagsFrom  = tagsFrom
	PrefixEnd = prefixEnd
)

const (
	CompletionQuery = completionQuery
	CompletionScan  = completionScan
	RankedQuery     = rankedQuery
	HistoryQuery    = historyQuery
	HistoryScan     = historyScan
)
