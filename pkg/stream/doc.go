// Package stream owns the durable NATS JetStream stream between ingest and the
// indexer: its definition, how it is written (one fenced atomic batch at a
// time), how it is read (in order, from a sequence number), who may write it
// (a lease), and its two side streams, the dead letters and the ingest log.
//
// The discipline of the writer, which everything downstream stands on:
//
//   - Events go in as atomic batches, whole or not at all. The first message of
//     each carries the sequence number that the stream's last message must
//     have. So a batch is never stored twice, never out of order, and a writer
//     that was replaced without noticing is refused ([ErrFenced]).
//   - Every message holds the upstream position it came from. The stream is
//     the writer's only checkpoint: data and position are one write.
//   - After any error the writer reads the stream's last message to learn what
//     happened. It never retries single messages.
//
// Why so, with measurements: docs/decisions/0002-fenced-batches.md.
package stream
