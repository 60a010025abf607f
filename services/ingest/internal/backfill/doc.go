// Package backfill fills in the past: it publishes what qualified in a window of
// upstream history, beside the reader that follows the present, and changes
// nothing of what that reader does.
//
// What is published late must not bring back what is gone. The reader of the
// present passes over deletions of posts that the index never had, so their
// creates alone would stay; and a host forgets, hours later, versions
// that were replaced or deleted, but not the deletions. So history is read
// from the window's beginning to the present, twice:
//
//	survey   beginning ──────────────────────────────► present   what of the window is gone since
//	window   beginning ─────► end                                publish, but for that
//	follow                    end ──────────────────────► live   publish what became of it since
//
// The survey keeps what is gone out, so that it is not seen even for a while,
// and statuses of accounts that have changed since. Follow publishes each later
// change of the window's posts and accounts, up to where the live events were in
// the stream when the last of the window was stored; what comes after that, the
// live ones tell. Both use filters of fixed size for which posts and accounts these are,
// so that some others are followed as well, which changes nothing.
//
// All that is published are events of upstream with their own times and
// revisions, and the index takes the newest whatever their order. So nothing
// changes when a backfill runs again, and one that was interrupted is run again.
package backfill
