// Package store owns the index in Postgres. No other package has SQL.
//
// This package holds what both sides share: connections, the schema and its migrations, the
// checkpoint, and the meaning of database errors. Only package write changes rows: rows, checkpoint
// and lease in one transaction. Package query only selects, in read-only transactions with a
// time-out. Package check verifies whole indexes. The linter enforces these rules (.golangci.yml).
//
// The index lives in one schema. A rebuild fills a second one with the same migrations and the same
// writer, and write.Owner's Switch swaps their names in one transaction; readers see one or the
// other, never a mixture.
package store
