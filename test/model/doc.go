// Package model is the oracle of the tests: what Tagstream's index must be, and what its API
// must answer.
//
// It is written from the contract and from docs/invariants.md with maps and slices, to be obviously
// right rather than fast. It shares no rule with the services, so it also detects a mistake that
// reader and writer have in common. From pkg/event it uses the types and [event.Decode]: messages
// that Decode refuses are the dead letters.
//
//   - [Index] is the fold of the stream's messages. [FromNetwork] instead folds the log of a
//     simulated network, without Tagstream's events in between.
//   - [CheckHTTP] compares all answers of a running API with an index.
//   - [Timeline] judges what readers saw of an index while it changed.
//   - [Generate] makes seeded histories full of edge cases, [Crowd] plain ones with many posts.
package model
