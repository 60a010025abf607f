// Package firehose owns the connection to Jetstream: which host to read from,
// where on that host to begin, when to give up on it, and when to stop. It
// hands events on as the official client gives them, in upstream order, at
// least once.
//
// What it promises: no event of the followed kinds is skipped between two
// batches, through reconnects, fail-over and restarts, as long as some host
// still has it. What it costs is overlap: after a change of host, events of the
// last minute come again.
//
// The official client decides alone how to read (archive blocks, then the live
// websocket), but it trusts the cursor that it is given, and three kinds of
// cursor make it silent or wrong:
//
//   - One above the host's tip, from another host or from before the host was
//     wiped, gives neither events nor an error, for ever. One that the host has
//     given to another event meanwhile (it crashed before it had stored the
//     first) makes the client drop events as known. So a cursor is never given
//     to a client before a raw probe has shown that the host has the event that
//     we know there (verify), and a client is not let reconnect by itself.
//   - A time instead of a sequence number: the server understands it, the
//     client then drops everything. So a raw probe turns times into sequence
//     numbers (seek).
//   - None at all ("from the tip"): a reconnect before the first event leaves
//     a gap. So the tip, too, is resolved to a sequence number first.
//
// And the client passes over archive blocks that it cannot read with an error
// like any other. So nearly every error ends a client, and a new one begins
// behind the last event delivered. Its plans of the archive are changed on
// their way, so that it does not take whole segment files into memory
// (blockwise).
//
// The times that hosts show and seek by are theirs: one may lag by minutes, its
// clock be wrong, its operator import any. What hosts share is the revisions of
// commits, and so positions have a clock made of these (clock). On another host
// reading begins where the revisions of what it has are early enough (seek).
//
// A message that is longer than the client takes would end each of its
// connections: it is taken out of the websocket (sift). A host whose history
// begins only behind the position knows no deletions of the time between: it is
// passed over for others as long as that is bearable, and then said (checkYoung).
//
// A visit to a host ends with the client's error, or when the watchdog finds the
// client stalled or the host away. A host that was of use is then tried a few
// times more; then the others have their turn, the preferred one first, with
// back-off once all of them were tried (rotation).
//
// A host that answers and says nothing may have lost the relay that it reads
// from. Only others can tell: they are asked for something newer than was read,
// by the events' own times. Where one has it reading goes on there, and the host
// that was left comes last until it has something newer itself (lookElsewhere).
package firehose
