// Package bench measures the whole pipeline on one machine, next to what one would use instead, and
// writes a report.
//
//	archive, simnet ── real Jetstream ──> ingest ──> NATS ──> indexer ──> Postgres ──> api ──> this package
//
// Every server and service is a process, over loopback TCP, with the database roles of a
// deployment; NATS syncs every write, Postgres has fsync on. Each figure is measured in turn with
// its peer, so that a busy moment of the machine affects both. The report shows the median of the
// rounds with its spread, and the CPU time of the processes per unit. Trust the ratios and the CPU
// times: absolute speeds are those of one machine at one moment.
//
// The archive has a realistic mix (archive.go) and is written into the Jetstream server's folder.
// Posts whose latency is measured go through the simulated network.
//
// A run fails, instead of reporting a figure, if a service exits, loses a post, or exceeds a time
// limit. The error includes the end of the service's log.
package bench
