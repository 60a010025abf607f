// Package fault breaks connections between programs and the servers they use.
// For tests only.
//
// A Proxy stands before a server. It fires faults by operation and count: the
// third commit of a transaction that moved the checkpoint, the next publish to
// POSTS. To know operations it reads just enough of the protocol of NATS or
// Postgres. Each fault comes in both forms that a caller must tell apart and
// cannot:
//
//	Failed       client ──op──✂              server    the server never hears of it
//	TookEffect   client       ✂──answer──── server    the server has done it, the answer is lost
//
// and the connection breaks in one of several ways: closed, reset, torn in the
// middle of a frame, or left open and silent. Beside that a Proxy cuts, stalls,
// slows and refuses whole connections of any protocol on demand.
//
// What fired is counted in a Log by kind and form. A fault that was armed and
// has not fired is not in it: a test compares the two and so proves that its
// faults were real.
package fault
