// Package bench measures the whole pipeline on one machine beside what somebody would use instead,
// and writes a report.
//
//	archive, simnet ── real Jetstream ──> ingest ──> NATS ──> indexer ──> Postgres ──> api ──> this package
//
// Every server and service is a process, over loopback TCP, with the database roles of a
// deployment; NATS syncs every write, Postgres has fsync on. Each figure is taken in turns with its
// peer, so that a busy moment of the machine meets both; the median of the rounds stands in the
// report with its spread, and beside it what the processes worked for each piece. Trust the ratios
// and the work: absolute speeds are those of one machine at one moment.
//
// The archive is made of a realistic mix (archive.go) and put into the Jetstream server's folder;
// what is timed on its way goes through the simulated network.
//
// A run fails, rather than report a figure, where a service ends, loses a post, or does not get
// there in time; the error then carries the end of the service's log.
package bench
