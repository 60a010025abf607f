// Package lab is the pagination lab: it shows, on a large index, what keyset paging costs and
// guarantees. It fills an index with the real writer, queries it with the real reader, and does the
// same in the ways that people try first: OFFSET, tag = ANY, probes alone, merges alone, orders
// without a tie-breaker. It measures:
//
//   - depth: latency, index rows, records and buffers of a page at any depth;
//   - plans: what Postgres does for our pages, and that it never sorts;
//   - drift: which rows a reader sees twice or never while the list changes under it;
//   - ties: the same for orders that are not unique;
//   - all of two tags, by how the two lists overlap;
//   - filters, the list of tags, planning, tokens.
//
// Rows are counted by Postgres's own statistics (pg_stat_*_indexes), not derived from our SQL.
// Plans are those of prepared statements with the reader's own settings.
//
// The report explains what every figure means and how it was obtained. A run fails if a bar of
// rows, plans or drift is missed. Missed bars of time are only reported, since machines may be
// busy. The corpus, the changes and the order of requests follow from the seed.
package lab
