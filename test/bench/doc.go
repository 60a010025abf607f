// Package bench measures the whole pipeline on one machine and writes a report.
//
//	simnet ── real Jetstream ──> bin/ingest ──> NATS ──> bin/indexer ──> Postgres ──> bin/api ──> this package
//	                   └──────────> an official client of our own: when did the event arrive? ─────────┘
//
// The three services run as the separate binaries, built from this workspace, over loopback TCP, with the database
// roles of a deployment. NATS is embedded in this process and syncs every write; Postgres is a private cluster with
// fsync on. What is measured:
//
//   - freshness: from an event's arrival at a client to the first HTTP answer that shows the post;
//   - memory: the peak resident size of each service, after histories of several sizes;
//   - throughput: archive replay, indexing, rebuild, and pages near and far;
//   - cost: bytes on disk for each million posts.
//
// It promises that every figure stands beside what it means and how it was obtained, and that a run is bounded in time.
// It fails, rather than report a figure, where a service ends, loses a post, or does not get there in time; the error
// then carries the end of the service's log. Absolute speeds are those of one machine at one moment: trust the ratios.
package bench
