// Package store owns the index in Postgres: its schema and migrations, every
// query, and the two ways in. [Writer] is the indexer's: rows, checkpoint and
// lease change in one transaction. [Reader] is the API's: it only selects, in
// read-only transactions with a time-out. No other package has SQL.
//
// The index lives in one schema. A rebuild fills a second one with the same
// migrations and the same writer, and [Switch] swaps their names in one
// transaction; readers see the one or the other, never a mixture.
package store
