// Package soak breaks the whole system on purpose and examines the result. It consists of tests
// only.
//
// One run is one seed. It starts the real Jetstream server on a simulated network, a real NATS
// server, a private Postgres and the real ingest, indexer and api, each in its own process, with a
// proxy of package fault on every connection between them:
//
//	network ─ Jetstream ─▷─ ingest ─▷─ NATS ─▷─ indexer ─▷─ Postgres ─▷─ api ─ reader
//
// If its troubles need it, a run has a second Jetstream host, one of the two stamping events
// minutes late, or a NATS cluster instead of one server.
//
// Seeded traffic, full of edge cases, flows while a seeded schedule of troubles strikes (see the
// catalogue in troubles_test.go) and the deny file changes. Then the network falls silent,
// everything is restored, and all that the API answers is compared with two folds of package model:
// of what the network did, and of what is in the stream. Counters, postings and markers are compared
// inside the database. Throughout the run a reader queries the API, which may be unavailable but
// never wrong.
//
// A run fails on a difference, on a program that exits by itself, and on a planned trouble that did
// not strike. It then prints its seed and keeps its directory with every log. The schedule and the
// traffic follow from the seed; the exact timing does not, so reproducing a failure may take
// several runs.
package soak
