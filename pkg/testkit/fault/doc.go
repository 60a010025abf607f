// Package fault breaks connections between programs and the servers they use. For tests only.
//
// A Proxy stands in front of a server. It fires faults by operation and count: the third commit of
// a transaction that moved the checkpoint, the next publish to POSTS. To recognize operations it
// reads just enough of the NATS or Postgres protocol. Each fault has both forms, which a caller
// cannot tell apart but must handle:
//
//	Failed       client ──op──✂              server    the server does not receive the operation
//	TookEffect   client       ✂──answer──── server    the operation took effect, the answer is lost
//
// The connection then breaks in one of several ways: closed, reset, torn in the middle of a frame,
// or left open and silent. A Proxy can also cut, stall, slow and refuse whole connections of any
// protocol.
//
// A Log counts the faults that fired, by kind and form. A fault that was armed and did not fire is
// not in it, so a test that compares the two proves that its faults were real.
package fault
