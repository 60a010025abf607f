package lab

import (
	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// What people write first, in its best form: ids are known, keys are found before records are
// fetched, and the planner is unrestricted.

// newest is the key above all others.
var newest = event.Key{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// recordsQuery fetches the records of keys, as the reader does.
const recordsQuery = `SELECT p.key, a.did, p.rkey, p.cid, p.tags, p.langs, p.indexed_at, p.record
  FROM unnest($1::uuid[]) AS page(key) JOIN posts p USING (key) JOIN accounts a ON a.id = p.account_id`

// withRecords fetches the records of the keys that a statement returns.
func withRecords(keys string, args ...any) query.Statement {
	return query.Statement{SQL: `SELECT p.key, a.did, p.rkey, p.cid, p.tags, p.langs, p.indexed_at, p.record
  FROM (` + keys + `) AS page JOIN posts p USING (key) JOIN accounts a ON a.id = p.account_id
 ORDER BY p.key DESC`, Args: args}
}

// offsetPage skips the rows before the page.
func offsetPage(ids []int64, depth int) query.Statement {
	if len(ids) == 1 {
		return withRecords(`SELECT key FROM post_tags WHERE tag_id = $1 ORDER BY key DESC LIMIT $2 OFFSET $3`, ids[0], page, depth)
	}
	return withRecords(`SELECT DISTINCT key FROM post_tags WHERE tag_id = ANY($1::bigint[]) ORDER BY key DESC LIMIT $2 OFFSET $3`, ids, page, depth)
}

// anyPage seeks to the place by the key, with one condition for all tags.
func anyPage(ids []int64, below event.Key) query.Statement {
	return withRecords(`SELECT DISTINCT key FROM post_tags WHERE tag_id = ANY($1::bigint[]) AND key < $2 ORDER BY key DESC LIMIT $3`, ids, below, page)
}
