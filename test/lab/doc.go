// Package lab shows, on a large index, what keyset paging costs and what it keeps: the pagination lab.
//
// It fills an index through the real writer, asks it through the real reader, and asks it the same by the ways that
// people try first: OFFSET, tag = ANY, probes alone, merges alone, orders without a tie-breaker. What is measured:
//
//   - depth: latency, index rows, records and buffers of a page at any depth;
//   - plans: what Postgres does for our pages, and that it never sorts;
//   - drift: which rows a reader sees twice or never while the list changes under it;
//   - ties: the same for orders that do not tell all rows apart;
//   - all of two tags, by the way in which the two lie to each other;
//   - filters, the list of tags, planning, tokens.
//
// Rows are counted by Postgres's own statistics (pg_stat_*_indexes), not taken from our SQL's intentions; plans are those
// of prepared statements under the reader's own settings.
//
// A run promises that every figure stands beside what it means and how it was obtained, and that it fails where a bar of
// rows, plan or drift is missed; bars of time are reported and fail nothing, since machines have other things to do. The
// corpus, the changes and the order of what is asked follow from the seed.
package lab
