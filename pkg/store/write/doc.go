// Package write changes the index, and is the only one that does. [Writer] is the indexer's:
// it changes rows, checkpoint and lease in one transaction. [Owner] makes, switches and
// removes whole schemas.
package write
