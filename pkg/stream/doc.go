// Package stream owns the durable NATS JetStream stream between ingest and the indexer: its
// definition, how it is written (one fenced atomic batch at a time), how it is read (in order, from
// a sequence) and who may write it (a lease). It also owns what is stored next to it: the dead
// letters, the ingest log, and the upstream position for the case that the stream is empty.
//
// Single messages are requested only from the stream's leader, because a lagging replica may not
// have the newest. Stream settings belong to the operator: Ensure creates what is missing, Adjust
// changes only what is configured.
//
// Everything downstream depends on how the writer works:
//
//   - Events are written in atomic batches. The first message of each names the sequence that the
//     stream's last message must have. So a batch is never stored twice or out of order, and a
//     writer that was replaced without noticing is refused ([ErrFenced]).
//   - Every message holds the upstream position it came from, so data and position are one write,
//     and the stream says where reading resumes. The separately stored position counts only if the
//     stream is empty, and is never ahead of it.
//   - After any error the writer reads the stream's last message to learn what happened. It never
//     resends anything before that. A random name in the message headers distinguishes its batch
//     from all others.
//   - A server that runs out of storage during a batch keeps the front of it. Nothing here needs
//     batches to be whole: this writer, or the next one, continues after the last stored message.
//
// Reasons and measurements: docs/decisions/0002-fenced-batches.md.
package stream
