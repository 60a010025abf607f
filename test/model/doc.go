// Package model is the oracle of the tests: what Tagstream's index must be, and what its API
// must answer.
//
// It is written from the contract and from docs/invariants.md with maps and slices, to be
// obviously right rather than fast, and shares no rule with the services: a mistake that reader
// and writer have in common still shows. From pkg/event it takes the types and [event.Decode],
// whose refusals are the dead letters.
//
//   - [Index] is the fold of the stream's messages. [FromNetwork] folds what a simulated network
//     did instead, without any event of Tagstream's own in between.
//   - [CheckHTTP] compares all that a running API answers with an index.
//   - [Timeline] judges what readers saw of an index that changed meanwhile.
//   - [Generate] makes seeded histories full of edges, [Crowd] plain ones of many posts.
package model
