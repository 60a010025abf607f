// Package reconcile mends what a gap left: posts that were deleted while no host
// was read that knew of it.
//
// A host that is younger than the last position knows the posts that accounts
// held when it downloaded them, but no deletion before that. Its archive begins
// with these downloads: creates alone, all of an account's at the revision of
// its repository then. A post that the stream has at an older revision, and the
// archive does not show, was deleted in between. For each such post a deletion
// at the archive's revision goes into the stream, like any other event: so a
// rebuilt index is the same, and the index's own rules leave alone what is newer.
//
//	stream  ──► which posts are there, which accounts are hidden     (known)
//	archive ──► accounts' revisions, which posts are shown           (archive)
//	stream  ──► the missing ones, by name ──► job ──► stream
//
// It leaves alone the posts of accounts that are hidden or erased, for the
// archive could not have them; of accounts that it does not show at all, for
// their download may have failed; and of those that it shows only where the
// downloads end and live events begin, for these cannot be told apart. Where
// more than a set share of all posts would go it publishes nothing: then it is
// more likely that the archive is wrong than the index.
//
// Memory is bounded: accounts are taken in as many parts as it takes.
package reconcile
