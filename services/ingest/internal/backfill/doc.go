// Package backfill fills a past window: it publishes what qualified in a window of upstream
// history. The live reader runs alongside and is not affected.
//
// Late publishing must not bring back what was removed. The live reader skips deletions of posts
// that the index never had, so creates alone would bring those posts back; and after some hours a
// host drops versions that were replaced or deleted, but not the deletions. So history is read from
// the window's beginning to the present, twice:
//
//	survey   beginning ──────────────────────────────► present   what of the window is gone since
//	window   beginning ─────► end                                publish, except what is gone
//	follow                    end ──────────────────────► live   publish later changes of it
//
// The survey leaves out what is gone, so that it is never visible, not even briefly, and statuses
// of accounts that have changed since. Follow publishes each later change of the window's posts and
// accounts, up to the live position at which the last event of the window was stored; later changes
// arrive through live reading. Both recognize these posts and accounts by filters of fixed size, so
// a few others are followed as well, which changes nothing.
//
// Everything published is an upstream event with its own times and revisions, and the index takes
// the newest in whatever order they arrive. So running a backfill again changes nothing, and an
// interrupted one is simply run again.
package backfill
