// Package tracing owns what OpenTelemetry is to Tagstream: which spans are
// recorded, how a trace travels with an event, and how spans get to a collector
// (OTLP over HTTP).
//
// Off, which is the default, there is no tracer: [Tracing.Tracer] returns nil,
// and who has none does nothing and allocates nothing. On, what it promises is
// that a collector which is away, slow or silent costs spans and nothing else:
// a bounded number of them waits, the others are dropped and counted, and a
// program that stops gives the last ones a few seconds.
//
// Spans name hosts, sequence numbers, kinds and counts. They never hold a DID, a
// record key, a tag, a text or a query: what leaves for a collector is out of
// reach of the erasure of what was removed.
package tracing
