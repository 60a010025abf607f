package write

import (
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// columns returns posts as the array arguments of one statement. Nested arrays must be rectangular
// in Postgres, so tags and langs are passed as array literals.
func columns(posts []*Post) []any {
	n := len(posts)
	keys, accounts, seqs := make([]event.Key, n), make([]int64, n), make([]int64, n)
	rkeys, revs, cids, records, removed := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	tags, langs := make([]string, n), make([]string, n)
	times := make([]time.Time, n)
	traits := make([]int16, n) // not []event.Traits: a pooled connection cannot look up that array type
	for i, p := range posts {
		keys[i], accounts[i], seqs[i] = p.Key, p.Account.ID, int64(p.Seq)
		rkeys[i], revs[i], cids[i], records[i] = p.Rkey, p.Rev, p.CID, string(p.Record)
		tags[i], langs[i] = textArray(p.Tags), textArray(p.Langs)
		times[i], removed[i], traits[i] = p.IndexedAt, p.RemovedRev, int16(event.TraitsOf(p.Record))
	}
	return []any{keys, accounts, rkeys, revs, cids, tags, langs, times, seqs, records, removed, traits}
}

// arrayEscapes escapes the characters that are special in a quoted element.
var arrayEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// textArray returns an array literal of texts.
func textArray(all []string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, s := range all {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		_, _ = arrayEscapes.WriteString(&b, s) // a Builder never fails
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}
