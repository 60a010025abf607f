// Package event owns the messages of the stream: the events that ingest publishes and the indexer
// folds, their JSON form, and the rules that turn a raw record into an event: what a tag is
// ([NormalizeTag], [Tags]), how posts are ordered ([SortAt], [NewKey]) and which identifiers are
// valid.
//
// The package is pure: no clocks, no network, no storage. Ingest and the API normalize tags with
// the same function, so a query finds what was indexed.
//
// docs/stream.md describes the JSON form; testdata has an example of each kind. The form is
// versioned: [Decode] reads every version that may still be stored, and returns [ErrUnknownVersion]
// for messages of a newer writer.
package event
