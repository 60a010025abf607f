// Package soak breaks the whole system on purpose and looks at what is left.
// It has tests alone.
//
// One run is one seed. It starts the real Jetstream server on a simulated
// network, a real NATS server, a private Postgres and the real ingest, indexer
// and api, each as a process of its own, with a proxy of package fault on every
// connection between them:
//
//	network ─ Jetstream ─▷─ ingest ─▷─ NATS ─▷─ indexer ─▷─ Postgres ─▷─ api ─ reader
//
// A run whose troubles need it has a second Jetstream host, one of the two stamping
// events minutes late, or a NATS cluster in the place of the server.
//
// Seeded traffic, full of edges, flows while a seeded schedule of troubles
// strikes: see the catalogue in troubles_test.go. Then the network falls silent,
// everything is up again, and all that the API answers is compared with two
// folds of package model: that of what the network did, and that of what is in
// the stream. Counters, postings and markers are compared inside the database.
// All through the run a reader asks the API, which may be away but never wrong.
//
// A run fails on a difference, on a program that ends by itself, and on a
// trouble that was planned and did not strike. It then prints its seed and keeps
// its directory with every log. The schedule and what the traffic does follow
// from the seed; when things happen to meet does not, so a failure may need its
// seed more than once.
package soak
