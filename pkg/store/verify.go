package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// MaxFindings is how many findings are counted before a verification ends.
const MaxFindings = 1000

// errEnough ends a verification that has found enough.
var errEnough = errors.New("enough")

// ErrApart is returned by Verifier.Compare for indexes that are not at the same
// checkpoint: they are bound to differ.
var ErrApart = errors.New("the two indexes are not at the same message of the stream")

// ErrSweeping is returned by Verifier for an index in which an account is being
// swept: it does not agree with itself until that is over, in a moment. Compare also
// returns it while stored tags are brought into their present form.
var ErrSweeping = errors.New("an account of very many posts is being hidden, shown or erased, or stored tags get their present form")

// Findings are what a verification found to be wrong.
type Findings struct {
	// First is a sentence on the first one, "" where there are none.
	First string
	// N is how many there are; MaxFindings says that there may be more.
	N int
}

// String says all of it in one sentence.
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

// add counts a finding. The error is errEnough where that makes it enough.
func (f *Findings) add(format string, args ...any) error {
	if f.N++; f.N == 1 {
		f.First = fmt.Sprintf(format, args...)
	}
	if f.N >= MaxFindings {
		return errEnough
	}
	return nil
}

// Verifier checks whole indexes, each in one unchanging state, while they are
// being written and read. It needs the right to select, and reads everything once,
// in pieces: its memory is bounded, its time is not.
type Verifier struct {
	options Options
	// Progress, if set, hears of rows read, of about how many.
	Progress func(done, total uint64)
}

// NewVerifier returns a Verifier that connects with o for each thing it does.
func NewVerifier(o Options) *Verifier { return &Verifier{options: o} }

// Check checks that the index in a schema agrees with itself: that exactly the
// posts of active accounts are listed, under their tags and languages, and that
// every count is that of what it counts. The error is ErrSweeping or the
// database's.
func (v *Verifier) Check(ctx context.Context, schema string) (Findings, error) {
	r := verification{progress: v.Progress}
	err := v.snapshot(ctx, func(tx pgx.Tx) error {
		x, err := r.open(ctx, tx, schema)
		if err != nil {
			return err
		}
		return x.check(ctx)
	})
	return r.findings, enough(err)
}

// Compare checks two indexes each by itself, and that they show the same: the
// same posts at the same places in the same version, and the same state of
// accounts. So everything that is made of these is the same, too: who sees
// them, tags, languages, counts. Ids and stream sequences may differ, and what
// is remembered of things that are gone.
//
// Both have to be at the same checkpoint. Where align is not nil, a's is held
// and align called to bring b to it, as Owner.Switch does, with the right to
// change rows. The error is ErrApart, ErrSweeping, align's, or the database's.
func (v *Verifier) Compare(ctx context.Context, a, b string, align func(ctx context.Context, seq uint64) error) (Findings, error) {
	r := verification{progress: v.Progress}
	err := v.snapshot(ctx, func(tx pgx.Tx) error {
		var x, y *inspection
		open := func() (err error) {
			if x, err = r.open(ctx, tx, a); err == nil {
				y, err = r.open(ctx, tx, b)
			}
			return err
		}
		begin := open
		if align != nil {
			begin = func() error { return v.aligned(ctx, a, align, open) }
		}
		if err := begin(); err != nil {
			return err
		}
		if x.retagging || y.retagging {
			return fmt.Errorf("compare %s with %s: %w", a, b, ErrSweeping)
		}
		if x.seq != y.seq {
			return fmt.Errorf("%w: %s is at %d, %s at %d", ErrApart, a, x.seq, b, y.seq)
		}
		return compare(ctx, x, y)
	})
	return r.findings, enough(err)
}

// aligned calls then while a schema's checkpoint is held and align has brought
// another schema to it.
func (v *Verifier) aligned(ctx context.Context, schema string, align func(ctx context.Context, seq uint64) error, then func() error) error {
	ctx, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	return NewOwner(v.options).do(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = "+millis(switchLockTimeout)); err != nil {
				return fmt.Errorf("hold the checkpoint of %s: %w", schema, err)
			}
			var seq int64
			if err := tx.QueryRow(ctx, "SELECT seq FROM "+qualified(schema, "checkpoint")+" FOR UPDATE").Scan(&seq); err != nil {
				return fmt.Errorf("hold the checkpoint of %s: %w", schema, notMigrated(err))
			}
			if err := align(ctx, uint64(seq)); err != nil {
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

// snapshot runs fn on one unchanging state of the database, which is that of
// fn's first statement.
func (v *Verifier) snapshot(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return NewOwner(v.options).do(ctx, func(conn *pgx.Conn) error {
		registerKey(conn.TypeMap())
		// As for a reader: walks along indexes. But each may take its time.
		for name, value := range readerSettings() {
			if strings.HasPrefix(name, "enable_") || name == "jit" {
				if _, err := conn.Exec(ctx, "SET "+name+" = "+value); err != nil {
					return fmt.Errorf("prepare to verify: %w", err)
				}
			}
		}
		return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
	})
}

// verification is one run.
type verification struct {
	findings    Findings
	progress    func(done, total uint64)
	done, total uint64
}

func (r *verification) step(rows int) {
	if r.done += uint64(rows); r.progress != nil {
		r.progress(r.done, max(r.done, r.total))
	}
}

// qualified is a table's name with its schema's.
func qualified(schema, table string) string { return pgx.Identifier{schema, table}.Sanitize() }
