// Package stream owns the durable NATS JetStream stream between ingest and the
// indexer: its definition, how it is written (one fenced atomic batch at a
// time), how it is read (in order, from a sequence number), who may write it
// (a lease), and what stands beside it: the dead letters, the ingest log, and how
// far upstream was read, for when the stream is empty.
//
// It asks for single messages at the stream's leader alone, since a replica that is
// behind does not find the newest. The streams' settings are the operator's: Ensure
// makes what is missing, Adjust changes what it was told to and nothing else.
//
// The discipline of the writer, which everything downstream stands on:
//
//   - Events go in as atomic batches. The first message of each carries the
//     sequence number that the stream's last message must have. So a batch is
//     never stored twice, never out of order, and a writer that was replaced
//     without noticing is refused ([ErrFenced]).
//   - Every message holds the upstream position it came from. The stream is
//     the writer's checkpoint: data and position are one write. The one beside
//     it counts only where the stream is empty, and is never ahead of it.
//   - After any error the writer reads the stream's last message to learn what
//     happened. It never sends again what it has not looked for. A random name
//     in the messages' headers tells its batch from every other.
//   - A server that runs out of storage in the middle of a batch keeps the front
//     of it. Nothing here needs batches to be whole: the writer goes on behind
//     what is stored, as does whoever comes after it.
//
// Why so, with measurements: docs/decisions/0002-fenced-batches.md.
package stream
