// Package simnet is a simulated atproto network for the real Jetstream server: a PLC directory, one
// PDS and a relay on loopback, with signed, verifiable repositories, driven by a test or by
// generated traffic.
//
//	Network (accounts, signed repos, ordered log) ── listHosts, listRepos, getRepo, DID documents ──┐
//	   │                                                                                            ▼
//	   └── Relay, one per server: subscribeRepos with cursor replay ───────────────────► Jetstream (the real binary)
//	                                                                                                │
//	                       Await: everything emitted has come out again ◄──────────── subscribeEvents
//
// It owns the network's state and the child processes it starts. It promises that every frame it
// emits passes the server's verification (signature, revision chain, inverted tree), unless a
// method says otherwise; that the log has the frames in the order of the relay's sequence; and that
// equal calls with equal seeds and clocks give equal bytes: keys, DIDs, revisions, record keys,
// CIDs and frames. It keeps everything in memory.
//
// Methods of Network and Relay are safe for concurrent use; the order of concurrent calls is then the only thing that a
// seed does not fix. Methods that change an account return errors for what the caller got wrong (ErrUnknownAccount,
// ErrInactive, ErrRecordExists, ErrNoRecord, ErrCommitTooLarge) and change nothing in that case.
package simnet
