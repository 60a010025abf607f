package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// MaxFindings is the number of findings at which a verification stops.
const MaxFindings = 1000

const (
	// sliceTime is how long a verification reads in one snapshot.
	sliceTime = 10 * time.Second
	// openPatience bounds the wait for the end of sweeps, or for a held checkpoint; openPause is
	// the pause between two attempts.
	openPatience = time.Minute
	openPause    = 200 * time.Millisecond
)

// errEnough ends a verification that has enough findings.
var errEnough = errors.New("enough")

// ErrNotAligned is returned by Verifier.Compare for indexes with different checkpoints.
var ErrNotAligned = errors.New("the two indexes are not at the same message of the stream")

// ErrSweeping is returned by Verifier for an index in which accounts are constantly being swept:
// until that is over it is not consistent. Compare also returns it while stored tags are converted
// to their current form.
var ErrSweeping = errors.New("an account of very many posts is being hidden, shown or erased, or stored tags are being rewritten")

// ErrUnlisted is returned by Verifier for an index that is being rebuilt and has no lists yet.
var ErrUnlisted = errors.New("the index is being rebuilt: its lists are made at the end")

// Findings are the errors that a verification found.
type Findings struct {
	// First describes the first one, "" if there are none.
	First string
	// N is their number; MaxFindings means that there may be more.
	N int
}

// String describes all of it in one sentence.
func (f Findings) String() string {
	switch {
	case f.N == 0:
		return "nothing is wrong"
	case f.N == 1:
		return f.First
	case f.N >= MaxFindings:
		return fmt.Sprintf("%s (and at least %d more)", f.First, f.N-1)
	}
	return fmt.Sprintf("%s (and %d more)", f.First, f.N-1)
}

// add counts a finding. The error is errEnough if that was the last one to count.
func (f *Findings) add(format string, args ...any) error {
	if f.N++; f.N == 1 {
		f.First = fmt.Sprintf(format, args...)
	}
	if f.N >= MaxFindings {
		return errEnough
	}
	return nil
}

// Verifier checks whole indexes while they are being written and read. It needs the right to
// select, and reads everything in pieces: its memory is bounded, its time is not.
//
// It reads in slices, each a snapshot of some seconds, so that old versions of constantly changing
// rows do not pile up until its end. Each piece is compared at one moment: a range of posts, of
// accounts, of list rows, or the counts of some lists.
type Verifier struct {
	options store.Options
	// Progress, if set, receives the number of rows read and the approximate total.
	Progress func(done, total uint64)
	// Near, if set, brings Compare's second index close to the first one's checkpoint, before that
	// checkpoint is held and align brings it all the way.
	Near func(ctx context.Context, seq uint64) error
	// slice is how long a snapshot lasts.
	slice time.Duration
}

// New returns a Verifier that opens a connection with o for each task.
func New(o store.Options) *Verifier { return &Verifier{options: o, slice: sliceTime} }

// Check checks that the index in a schema is consistent: exactly the posts of active accounts are
// listed, under their tags and languages, and every count is correct. The error is ErrSweeping or
// the database's.
func (v *Verifier) Check(ctx context.Context, schema string) (Findings, error) {
	r := &verification{Verifier: v}
	r.x = r.inspect(schema)
	err := r.run(ctx, append([]check{r.comparePosts}, r.x.checks()...))
	return r.findings, enough(err)
}

// Compare checks two indexes separately, and that they show the same: the same posts with the same
// keys in the same version, and the same account states. Then everything derived from these is the
// same, too: visibility, tags, languages, counts. Ids and stream sequences may differ, and so may
// records of removed posts.
//
// Both must be at the same checkpoint when a slice begins. If align is not nil, a's checkpoint is
// held and align is called to bring b to it, as write.Owner.Switch does; that needs the right to
// change rows. The error is ErrNotAligned, ErrSweeping, Near's, align's, or the database's.
func (v *Verifier) Compare(ctx context.Context, a, b string, align func(ctx context.Context, seq uint64) error) (Findings, error) {
	r := &verification{Verifier: v, align: align}
	r.x, r.y = r.inspect(a), r.inspect(b)
	err := r.compareDigests(ctx)
	if !errors.Is(err, errDiffer) {
		return r.findings, enough(err)
	}
	r = &verification{Verifier: v, align: align, done: r.done, total: r.total + r.done}
	r.x, r.y = r.inspect(a), r.inspect(b)
	steps := []check{r.comparePosts, r.compareAccounts, r.compareSyncs}
	for _, x := range r.both() {
		steps = append(steps, x.checks()...)
	}
	err = r.run(ctx, steps)
	return r.findings, enough(err)
}

// check does one piece of a verification, within one snapshot. done reports that it was the last of
// its kind. The next piece may be in another snapshot.
type check func(ctx context.Context) (done bool, err error)

// verification is one run.
type verification struct {
	*Verifier
	align    func(ctx context.Context, seq uint64) error
	x, y     *inspection // y is nil if x is checked alone
	findings Findings

	done, total uint64
	// How far posts and accounts have been compared.
	nextPost event.Key
	lastDID  string
}

func (r *verification) inspect(schema string) *inspection {
	return &inspection{verification: r, schema: schema, afterList: map[*listKind]string{}, afterRow: map[*listKind]listRow{}}
}

func (r *verification) step(rows int) {
	if r.done += uint64(rows); r.Progress != nil {
		r.Progress(r.done, max(r.done, r.total))
	}
}

// run runs the steps, in as many slices as necessary.
func (r *verification) run(ctx context.Context, steps []check) error {
	return r.connected(ctx, func(conn *pgx.Conn) error {
		for deadline := time.Now().Add(openPatience); len(steps) > 0; {
			begun := false
			err := snapshot(ctx, conn, func(tx pgx.Tx) error {
				if err := r.open(ctx, tx); err != nil {
					return err
				}
				begun = true
				for end := time.Now().Add(r.slice); len(steps) > 0; {
					done, err := steps[0](ctx)
					if err != nil {
						return err
					}
					if done {
						steps = steps[1:]
					}
					if time.Now().After(end) {
						return nil
					}
				}
				return nil
			})
			switch {
			case begun && err == nil:
				deadline = time.Now().Add(openPatience)
			case begun || time.Now().After(deadline) || !errors.Is(err, ErrSweeping) && !pg.LockTimedOut(err):
				return err
			default:
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-time.After(openPause):
				}
			}
		}
		return nil
	})
}

// open begins a slice: both indexes are at the same message.
func (r *verification) open(ctx context.Context, tx pgx.Tx) error {
	open := func() error {
		if err := r.x.open(ctx, tx); err != nil || r.y == nil {
			return err
		}
		return r.y.open(ctx, tx)
	}
	begin := open
	if r.align != nil {
		begin = func() error { return r.aligned(ctx, r.x.schema, open) }
	}
	if err := begin(); err != nil {
		return err
	}
	if r.y != nil && (r.x.retagging || r.y.retagging) {
		return fmt.Errorf("compare %s with %s: %w", r.x.schema, r.y.schema, ErrSweeping)
	}
	if r.y != nil && r.x.seq != r.y.seq {
		return fmt.Errorf("%w: %s is at %d, %s at %d", ErrNotAligned, r.x.schema, r.x.seq, r.y.schema, r.y.seq)
	}
	if r.total == 0 {
		r.total = r.x.rows()
		if r.y != nil {
			r.total += r.y.rows()
		}
	}
	return nil
}

// aligned calls then while it holds a schema's checkpoint, after the other index was brought to it.
func (r *verification) aligned(ctx context.Context, schema string, then func() error) error {
	return pg.Do(ctx, r.options, pg.Writing, func(conn *pgx.Conn) error {
		if r.Near != nil {
			var seq int64
			if err := conn.QueryRow(ctx, "SELECT seq FROM "+pg.Qualified(schema, "checkpoint")).Scan(&seq); err != nil {
				return fmt.Errorf("look up the checkpoint of %s: %w", schema, pg.NotMigrated(err))
			}
			if err := r.Near(ctx, uint64(seq)); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(ctx, pg.HoldTimeout)
		defer cancel()
		return pg.BeginFunc(ctx, conn, pgx.TxOptions{}, pg.PooledSettings(conn), func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = "+pg.Millis(pg.HoldLockTimeout)); err != nil {
				return fmt.Errorf("hold the checkpoint of %s: %w", schema, err)
			}
			var seq int64
			if err := tx.QueryRow(ctx, "SELECT seq FROM "+pg.Qualified(schema, "checkpoint")+" FOR UPDATE").Scan(&seq); err != nil {
				return fmt.Errorf("hold the checkpoint of %s: %w", schema, pg.NotMigrated(err))
			}
			if err := r.align(ctx, uint64(seq)); err != nil {
				return err
			}
			return then()
		})
	})
}

func enough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// connected runs fn on a connection to any server.
func (v *Verifier) connected(ctx context.Context, fn func(conn *pgx.Conn) error) error {
	return pg.Do(ctx, v.options, pg.Reading, fn)
}

// snapshot runs fn on one unchanging state of the database, that of fn's first statement. It reads
// like a reader, along indexes, but without a time limit.
func snapshot(ctx context.Context, conn *pgx.Conn, fn func(tx pgx.Tx) error) error {
	return pg.BeginFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		slices.Concat(pg.PooledSettings(conn), pg.PlannerSettings), fn)
}
