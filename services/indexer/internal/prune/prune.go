// Package prune deletes what the index keeps only for a time: markers of removed
// posts, and hourly counts that no history shows any more. It works in small
// transactions under the indexer's lease, between batches, so that it never
// keeps them waiting.
//
// A marker must outlive everything that can come into the stream again without
// the removal behind it, or an older event would bring its post back. That is
// what ingest reads again when it changes hosts: a minute. A backfill of the past
// leaves out what was removed since, or brings the removal again behind it; a
// redrive folds the removal again, and a rebuild the whole stream. None of them
// needs markers, so an index whose markers were pruned shows what one shows that
// has them all.
//
// A marker is also what shows that a removed post's payload may be erased from
// the stream (package erase): where that is done, it waits for it.
package prune

import (
	"context"
	"time"

	"github.com/tagstream/tagstream/pkg/store"
)

const (
	// step is the most rows that one transaction looks at.
	step = 5000
	// pause is how long at least lies between two transactions, and rest
	// between two looks through everything; retry is the pause after an error.
	pause = time.Second
	rest  = time.Hour
	retry = time.Minute
)

// The tables that are pruned, as they are counted.
const (
	Markers = "removed_posts"
	Hours   = "tag_hours"
)

// Tables lists them.
var Tables = []string{Markers, Hours}

// Pruner prunes while one lease lasts.
type Pruner struct {
	writer   *store.Writer
	age      time.Duration
	erased   bool
	onPruned func(table string, rows int64)

	sweep store.MarkerSweep
	hours bool // the markers are done, the hours are next
	due   time.Time
}

// New returns a pruner that keeps markers for age by upstream time and, with
// erased set, until the payloads that they show to be removed are erased. onPruned
// hears of rows that were deleted.
func New(w *store.Writer, age time.Duration, erased bool, onPruned func(table string, rows int64)) *Pruner {
	return &Pruner{writer: w, age: age, erased: erased, onPruned: onPruned}
}

// Step does a small piece of the work if one is due at now. The error is
// store.ErrLeaseLost or the database's; the same piece is tried again.
func (p *Pruner) Step(ctx context.Context, now time.Time) error {
	if now.Before(p.due) {
		return nil
	}
	p.due = now.Add(retry)
	if !p.hours {
		next, n, done, err := p.writer.PruneMarkers(ctx, p.age, p.erased, p.sweep, step)
		if err != nil {
			return err
		}
		p.onPruned(Markers, n)
		p.sweep, p.hours, p.due = next, done, now.Add(pause)
		return nil
	}
	n, done, err := p.writer.PruneHours(ctx, step)
	if err != nil {
		return err
	}
	p.onPruned(Hours, n)
	p.due = now.Add(pause)
	if done {
		p.sweep, p.hours, p.due = store.MarkerSweep{}, false, now.Add(rest)
	}
	return nil
}
