// Package dlq redrives dead letters: messages of the stream that the indexer
// passed because it could not apply them, and that can be applied by now, by a
// newer program or after what refused them was mended.
//
// The stream still has each message at its place, so a redrive does for the
// accounts that dead letters are about what a rebuild does for all: it reads
// what the stream says of them from its beginning, with the dead letters among
// it, and makes their rows what that comes to (apply.Applier.Redrive). So
//
//   - what came after a dead letter counts as after it: a post that was deleted
//     meanwhile is not brought back, a place in the order is that of a rebuild;
//   - it may be done again: a crash anywhere leaves the letter or the letter and
//     its effect, and the next redrive comes to the same.
//
// Where the stream's beginning was trimmed off, the history since the oldest
// letter of the account is folded over its rows instead; nothing is brought back
// either, but a place can be another than it would have been in order.
//
// The stream is read beside the running indexer. Then the lease is seized, for
// as long as it takes to read the last few messages and to write; the indexer
// waits as a standby and goes on from the same checkpoint.
package dlq
