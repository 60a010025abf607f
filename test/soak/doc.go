// Package soak breaks the whole system on purpose and examines the result. It consists of tests
// only.
//
// One run is one seed. It starts the real Jetstream server on a simulated network, a real NATS
// server, a private Postgres and the real ingest, indexer and api, each in its own process, with a
// proxy of package fault on every connection between them:
//
//	network ─ Jetstream ─▷─ ingest ─▷─ NATS ─▷─ indexer ─▷─ Postgres ─▷─ api ─ reader
//
// If its failures need it, a run has a second Jetstream host, where one of the two stamps events
// minutes late, or a NATS cluster instead of one server.
//
// Seeded traffic, full of edge cases, flows during a seeded schedule of failures (see the catalogue
// in failures_test.go), and the deny file changes. Then the network falls silent, everything is
// restored, and all answers of the API are compared with two folds of package model: of the
// network's log, and of the stream. Counters, list rows and markers are compared inside the
// database. Throughout the run a reader queries the API, which may be unavailable but never wrong.
//
// A run fails on a difference, on a program that exits by itself, and on a planned failure that did
// not happen. It then prints its seed and keeps its directory with every log. The schedule and the
// traffic follow from the seed; the exact timing does not, so reproducing a failure may take
// several runs.
package soak
