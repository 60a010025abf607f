// Package dlq redrives dead letters: messages of the stream that the indexer could not apply at the
// time, and that a newer program can apply, or that became applicable once the cause was fixed.
//
// The stream still has each message at its sequence. So a redrive does for the accounts concerned
// what a rebuild does for all: it reads their history from the beginning of the stream, including
// the dead letters, and writes the rows that result (apply.Applier.Redrive). Therefore:
//
//   - What came after a dead letter counts as after it: a post deleted is not restored,
//     and keys equal those of a rebuild.
//   - A redrive can be repeated: a crash leaves the letter, or the letter and its effect, and the
//     next redrive gives the same result.
//
// If the beginning of the stream was trimmed, the history since the account's oldest letter is
// folded over its rows instead. Nothing is restored then either, but a key can differ from the one
// in order.
//
// The stream is read beside the running indexer. Then the redrive takes the lease for as long as it
// needs to read the last few messages and to write; the indexer waits as a standby and continues
// from the same checkpoint.
package dlq
