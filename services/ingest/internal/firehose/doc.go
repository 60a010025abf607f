// Package firehose owns the connection to Jetstream: which host to read, where on that host to
// start, when to give it up, and when to stop. It delivers events as the official client gives
// them, in upstream order, at least once.
//
// Promise: no event of the followed kinds is skipped between two batches, through reconnects,
// fail-over and restarts, as long as some host still has it. The price is overlap: after a change
// of hosts, events of the last minute are delivered again.
//
// The official client decides alone how to read (archive blocks, then the live websocket), but it
// trusts its cursor, and three kinds of cursor make it silent or wrong:
//
//   - A cursor above the host's tip, from another host or from before the host was wiped, gives
//     neither events nor an error, indefinitely. A cursor that the host has since assigned to
//     another event (it crashed before storing the first) makes the client drop events as known. So
//     the client gets a cursor only after a raw probe has shown that the host has the event we know
//     there (verify), and it never reconnects on its own.
//   - A time instead of a sequence: the server understands it, but the client then drops
//     everything. So a raw probe turns times into sequences (seek).
//   - No cursor ("from the tip"): a reconnect before the first event leaves a gap. So the tip too
//     is resolved to a sequence first.
//
// The client also skips archive blocks that it cannot read, with an ordinary error. So nearly every
// error ends a client, and a new one starts behind the last delivered event. Its archive plans are
// changed in transit, so that it does not load whole segment files into memory (blockwise).
//
// Hosts show and seek by times of their own: a host may lag by minutes, have a wrong clock, or
// carry imported times. Hosts share only the revisions of commits, so positions have a clock
// derived from them (clock). On another host, reading starts where the revisions there are early
// enough (seek).
//
// A message longer than the client accepts would end every connection, so it is removed from the
// websocket (oversizeFilter). A host whose history begins after the position lacks the deletions
// between; other hosts are preferred for a while, and then a gap is reported (checkYoung).
//
// A visit to a host ends with the client's error, or when the watchdog finds the client stalled or
// the host gone. A host that delivered events is retried a few times; then the others follow, the
// preferred one first, with back-off once all were tried (rotation).
//
// A host that answers but delivers nothing may have lost its relay. Only other hosts can tell: they
// are asked for events newer than the last one read. If one has any, reading continues there, and
// the silent host becomes the last choice until it has something newer (lookElsewhere).
package firehose
