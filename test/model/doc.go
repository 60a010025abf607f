// Package model is the independent reference of what Tagstream's index must
// be: events in, expected posts, tags, counts and pages out. Tests run a
// history through the real services and through this package, and compare.
//
// It is written from the contract, with maps and slices, to be obviously right
// rather than fast. It shares no rule with the services: places, tag
// normalization and qualification are computed here a second time, so that a
// mistake common to reader and writer still shows. From pkg/event it takes only
// the types and [event.Decode], whose refusals are the dead letters.
//
// These build on the fold:
//
//   - [Generate] makes seeded histories full of edges, [GenerateMessages] the
//     same with messages among them that no reader can apply; [Crowd] makes
//     plain ones of many posts;
//   - [FromUpstream] says what the index must be from what was done on the
//     network, without any event of ours in between;
//   - [CheckHTTP] compares the answers of a running API with an index, whole:
//     posts, tags and totals, and the lists of random queries in every spelling
//     and walked in every way;
//   - [Timeline] judges what readers saw of an index that changed under them.
//
// The rules of the fold, each with a test of its name in this package:
//
//   - Per post the newest rev wins. An event applies only where its rev is
//     greater than that of the post, or of the marker that a removed post left.
//   - A post gets its place when it enters the index and keeps it while it
//     stays. Removal and deletion are the same. Those of posts that the index
//     never had leave nothing behind.
//   - Account events are ordered by the network's own time, then sequence number; by
//     the host's where an event has none.
//   - A sync at rev R makes the account's older posts stale. They go when the
//     creates that follow it directly have passed, all at one rev, which is R or
//     later; one of those that meets a stale post is an edit. Position messages
//     between them say whether they have passed.
package model
