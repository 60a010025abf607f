// Package prune deletes index rows that are kept only for a time: markers of removed posts, changes
// that followers read, hourly counts that no history shows any more, and names of tags and languages
// that no visible post has. It works in small transactions under the indexer's lease, between
// batches, so that batches never wait for it.
//
// A marker must outlive everything that can enter the stream again without the removal behind it,
// or an older event would restore its post. Four sources repeat old events, and none of them needs a
// pruned marker:
//
//   - Ingest resumes exactly behind the stream's last message. After a change of hosts it goes back
//     by a minute of network time, or to where an unfinished #sync began, and reads everything
//     since, removals included.
//   - A backfill leaves out what was removed since, and publishes every later change of what it
//     publishes, up to the live events.
//   - A redrive folds the whole history of the account, or on a trimmed stream everything behind the
//     dead letter.
//   - A rebuild starts without markers and replays the stream in order. It prunes nothing, and takes
//     over the live index's markers of posts that were erased from the stream and the floors of its
//     accounts.
//
// So as long as a #sync takes would be enough; the default of 30 days, measured back from the
// checkpoint's clock, covers what this list forgets. A clock ahead of the database's own counts as
// the database's, so upstream cannot make a marker old. An account's floors (erased_rev, sync_rev)
// are never pruned.
//
// A marker also shows that a removed post's payload may be erased from the stream (package erase).
// Where erasing is on, the marker stays until that is done.
package prune

import (
	"context"
	"time"

	"github.com/tagstream/tagstream/pkg/store/write"
)

const (
	// step is the most rows that one transaction examines.
	step = 5000
	// pause is the time between two transactions, and rest between two rounds through all tables;
	// retry is the pause after an error.
	pause = time.Second
	rest  = time.Hour
	retry = time.Minute
)

// The tables that are pruned, as they are counted.
const (
	Markers = "removed_posts"
	Changes = "changes"
	Hours   = "tag_hours"
	Tags    = "tags"
	Langs   = "langs"
)

// Tables lists them, in the order in which they are pruned.
var Tables = []string{Markers, Changes, Hours, Tags, Langs}

// Pruner prunes while one lease lasts.
type Pruner struct {
	writer       *write.Writer
	ages         Ages
	afterErasing bool
	onPruned     func(table string, rows int64)

	table  int // of Tables, the one that is pruned now
	marker write.MarkerPass
	list   int64 // the id of the last tag or language that was examined
	due    time.Time
}

// Ages are how long markers are kept, by upstream time, and changes, by the database's clock.
type Ages struct{ Markers, Changes time.Duration }

// New returns a pruner. With afterErasing, a marker stays at least until the payloads of its post are
// erased. onPruned is called after each transaction.
func New(w *write.Writer, ages Ages, afterErasing bool, onPruned func(table string, rows int64)) *Pruner {
	return &Pruner{writer: w, ages: ages, afterErasing: afterErasing, onPruned: onPruned}
}

// Step does a small piece of the work if one is due at now. The error is write.ErrLeaseLost or the
// database's; the same piece is tried again.
func (p *Pruner) Step(ctx context.Context, now time.Time) error {
	if now.Before(p.due) {
		return nil
	}
	p.due = now.Add(retry)
	n, done, err := p.prune(ctx, Tables[p.table])
	if err != nil {
		return err
	}
	p.onPruned(Tables[p.table], n)
	p.due = now.Add(pause)
	if !done {
		return nil
	}
	p.marker, p.list = write.MarkerPass{}, 0
	if p.table = (p.table + 1) % len(Tables); p.table == 0 {
		p.due = now.Add(rest)
	}
	return nil
}

func (p *Pruner) prune(ctx context.Context, table string) (n int64, done bool, err error) {
	switch table {
	case Markers:
		p.marker, n, done, err = p.writer.PruneMarkers(ctx, p.ages.Markers, p.afterErasing, p.marker, step)
	case Changes:
		n, done, err = p.writer.PruneChanges(ctx, p.ages.Changes, step)
	case Hours:
		n, done, err = p.writer.PruneHours(ctx, step)
	case Tags:
		p.list, n, done, err = p.writer.PruneTags(ctx, p.list, step)
	case Langs:
		p.list, n, done, err = p.writer.PruneLangs(ctx, p.list, step)
	}
	return n, done, err
}
