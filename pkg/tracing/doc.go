// Package tracing owns the use of OpenTelemetry: which spans are recorded, how a trace travels with
// an event, and how spans reach a collector (OTLP over HTTP).
//
// Tracing is off by default. Then there is no tracer: [Tracing.Tracer] returns nil, and a nil
// tracer does nothing and allocates nothing. When it is on, a collector that is down, slow or
// silent costs spans and nothing else: a bounded number waits, the others are dropped and counted,
// and a program that stops gives the last ones a few seconds.
//
// Spans name hosts, sequences, kinds and counts. They never hold a DID, a record key, a tag, a text
// or a query, because erasure cannot reach what a collector has stored.
package tracing
