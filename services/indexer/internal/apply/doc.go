// Package apply folds the stream's events into the index. It is the only code
// that decides what an event does to a post; the live indexer and a rebuild
// both go through it.
//
// A batch is folded in three steps inside one transaction of store.Writer:
// load the rows that its events can touch, fold the events over them in
// memory one after another, write the difference between before and after.
// So the result is that of applying the events one by one, whatever the size
// of the batch, and an event that comes twice changes nothing.
//
// The rules (docs/invariants.md names the test of each):
//
//   - The newest revision of a post wins; an older or equal one changes nothing.
//   - A post that leaves the index leaves a marker with the revision that
//     removed it, so that an older event cannot bring it back.
//   - An edit of a post in the index keeps its place; a post that enters gets
//     the place of the event that brought it.
//   - Account events are ordered by upstream time (event.StatusOrder). Hiding keeps
//     the posts, deletion erases them and leaves the highest revision as a floor.
//   - #sync at R makes the account's posts below R stale, and below the revision
//     of the replacements, where that is newer. They stay until the replacements,
//     which follow right behind it, have all come (event.SyncRun).
package apply
