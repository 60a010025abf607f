// Package reconcile repairs a gap: it removes posts that were deleted while no host was read that
// knew of the deletion.
//
// A host whose history begins after the last position knows the posts that accounts held when it
// downloaded them, but no earlier deletion. Its archive begins with these downloads: only creates,
// all of an account's at the revision of its repository at that time. A post that the stream has at
// an older revision, and the archive lacks, was deleted in between. For each such post a deletion
// at the archive's revision goes into the stream, like any other event: so a rebuilt index is the
// same, and the index's own rules protect newer posts.
//
//	stream  ──► which posts are there, which accounts are hidden     (known)
//	archive ──► accounts' revisions, which posts are shown           (archive)
//	stream  ──► the missing ones, by name ──► job ──► stream
//
// Three kinds of accounts are left alone: hidden or erased ones, because the archive cannot have
// their posts; accounts that the archive lacks altogether, because their download may have failed;
// and accounts that appear only where downloads end and live events begin, because the two cannot
// be distinguished there. If more than a set share of all posts would be removed, nothing is
// published: the archive is then more likely to be wrong than the index.
//
// Memory is bounded: accounts are processed in as many parts as necessary.
package reconcile
