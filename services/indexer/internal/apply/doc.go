// Package apply folds the stream's events into the index. It is the only code that decides what an
// event does to a post; the live indexer and a rebuild both use it.
//
// A batch is folded in three steps inside one transaction of write.Writer: load the rows that its
// events can touch, fold the events over them in memory one by one, write the difference. So the
// result equals applying the events one by one, whatever the batch size, and a repeated event
// changes nothing.
//
// The rules (docs/invariants.md names their tests):
//
//   - The newest revision of a post wins; an older or equal one changes nothing.
//   - A post that leaves the index leaves a marker with the revision that removed it, so that an
//     older event cannot restore it.
//   - An edit of a post in the index keeps its key; a post that enters gets its key from the event
//     that brought it.
//   - Account events of one host are ordered by its numbers, those of different hosts by upstream
//     time (event.StatusOrder). Hiding keeps the posts, deletion erases them and leaves the highest
//     revision as a floor.
//   - A #sync at R makes the account's posts below R stale, and below the revision of the
//     replacements if that is newer. They stay until all replacements, which follow directly, have
//     arrived (event.SyncState).
package apply
