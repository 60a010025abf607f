// Package write is the only package that changes the index. [Writer] is the indexer's: it changes
// rows, checkpoint and lease in one transaction. [Owner] creates, switches and removes whole
// schemas.
package write
