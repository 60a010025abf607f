package write

import (
	"encoding/json"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// columns gives posts as the arrays of one statement. Arrays of arrays have to
// be rectangular in Postgres, so tags and langs travel as JSON.
func columns(posts []*Post) []any {
	n := len(posts)
	keys, accounts, seqs := make([]event.Key, n), make([]int64, n), make([]int64, n)
	rkeys, revs, cids, records, removed := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	tags, langs := make([]json.RawMessage, n), make([]json.RawMessage, n)
	times := make([]time.Time, n)
	for i, p := range posts {
		keys[i], accounts[i], seqs[i] = p.Key, p.Account.ID, int64(p.Seq)
		rkeys[i], revs[i], cids[i], records[i] = p.Rkey, p.Rev, p.CID, string(p.Record)
		tags[i], langs[i] = jsonArray(p.Tags), jsonArray(p.Langs)
		times[i], removed[i] = p.IndexedAt, p.RemovedRev
	}
	return []any{keys, accounts, rkeys, revs, cids, tags, langs, times, seqs, records, removed}
}

func jsonArray(s []string) json.RawMessage {
	if len(s) == 0 {
		return json.RawMessage("[]")
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return b
}
