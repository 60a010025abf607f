// Package event owns what travels on the stream: the events that ingest publishes and the indexer
// folds, their JSON form, and the rules that turn a raw record into them: what a tag is
// ([NormalizeTag], [Tags]), how posts are ordered ([SortAt], [NewKey]) and what makes a valid key.
//
// The package is pure: no clocks, no network, no storage. Ingest and the API normalize tags with
// the same function, so a query finds what was indexed.
//
// docs/stream.md describes the JSON form, with an example of each kind in testdata. It is
// versioned: [Decode] reads every version that may still be stored, and returns [ErrUnknownVersion]
// for messages of a newer writer.
package event
