// Package store owns the index in Postgres. No package outside of it has SQL.
//
// This package is what both sides share: how to connect, the schema and its migrations, the
// checkpoint, and what an error of the database means. Rows are changed by package write
// alone: rows, checkpoint and lease change in one transaction. Package query answers
// questions: it only selects, in read-only transactions with a time-out. Package check
// verifies whole indexes. The linter holds these walls (.golangci.yml).
//
// The index lives in one schema. A rebuild fills a second one with the same migrations and
// the same writer, and write.Owner's Switch swaps their names in one transaction; readers
// see the one or the other, never a mixture.
package store
