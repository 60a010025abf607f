package keyset

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// MaxColumns is the most columns an [Ordering] may have.
const MaxColumns = 8

// Sort is the direction in which a column's values are sorted.
type Sort uint8

// The two directions. The zero value is Asc, as in SQL.
const (
	Asc Sort = iota
	Desc
)

// Nulls says whether a column can be NULL, and where its NULLs are sorted when the ordering is read
// forward.
type Nulls uint8

// NotNull is the zero value. Declare a column nullable only if it is: row
// comparison, the fastest predicate, needs columns without NULLs.
const (
	NotNull Nulls = iota
	NullsFirst
	NullsLast
)

// Column is one sort key of an [Ordering].
type Column struct {
	// Name is the name under which a query returns the column. It is part of
	// the fingerprint, so renaming a column makes older tokens mismatch.
	Name string
	// Expr is the SQL to compare and sort by, such as "t.posts", "-posts" or "lower(name)". Empty
	// means Name. It goes into queries unchanged: write it in code, never take it from a request.
	// It is not part of the fingerprint.
	Expr  string
	Sort  Sort
	Nulls Nulls
	Type  Type
}

// Ordering is a total order of rows: its columns together must be unique, so it usually ends with
// the primary key. With two rows that compare equal, no position could lie between them, and pages
// would lose or repeat one. An Ordering does not change and is safe for concurrent use.
type Ordering struct {
	columns     []Column
	orderBy     [2]string // by Direction, over expressions
	names       [2]string // by Direction, over output names
	fingerprint []byte    // unambiguous description, the start of each fingerprint
}

// NewOrdering checks the columns and returns their ordering.
func NewOrdering(columns ...Column) (*Ordering, error) {
	if len(columns) == 0 || len(columns) > MaxColumns {
		return nil, fmt.Errorf("keyset: an ordering needs 1 to %d columns, not %d", MaxColumns, len(columns))
	}
	o := &Ordering{columns: make([]Column, len(columns))}
	seen := make(map[string]bool, len(columns))
	for i, c := range columns {
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("keyset: column %d %q: %w", i+1, c.Name, err)
		}
		if seen[c.Name] {
			return nil, fmt.Errorf("keyset: column %d %q is named twice", i+1, c.Name)
		}
		seen[c.Name] = true
		if c.Expr == "" {
			c.Expr = c.Name
		}
		o.columns[i] = c
	}
	for _, direction := range []Direction{Forward, Backward} {
		var byExpr, byName []string
		for _, c := range o.columns {
			suffix := c.suffix(direction)
			byExpr = append(byExpr, c.Expr+suffix)
			byName = append(byName, c.Name+suffix)
		}
		o.orderBy[direction] = strings.Join(byExpr, ", ")
		o.names[direction] = strings.Join(byName, ", ")
	}
	o.fingerprint = append(o.fingerprint, "keyset ordering 1"...)
	o.fingerprint = binary.BigEndian.AppendUint32(o.fingerprint, uint32(len(o.columns)))
	for _, c := range o.columns {
		o.fingerprint = appendText(o.fingerprint, c.Name)
		o.fingerprint = append(o.fingerprint, byte(c.Sort), byte(c.Nulls), byte(c.Type))
	}
	return o, nil
}

// MustOrdering is [NewOrdering] for columns written in code: it panics on an error.
func MustOrdering(columns ...Column) *Ordering {
	o, err := NewOrdering(columns...)
	if err != nil {
		panic(err)
	}
	return o
}

// Columns returns a copy of the ordering's columns, with Expr filled in.
func (o *Ordering) Columns() []Column { return append([]Column(nil), o.columns...) }

// OrderBy returns the text that follows ORDER BY to read rows in the given direction. Backward
// reverses every column and the place of NULLs, so one index serves both. OrderBy(Forward) is also
// the column list of that index (expressions that are not plain columns need parentheses there).
func (o *Ordering) OrderBy(direction Direction) string { return o.orderBy[direction&1] }

func (c Column) check() error {
	switch {
	case c.Name == "":
		return errors.New("has no name")
	case c.Sort > Desc:
		return fmt.Errorf("has unknown direction %d", c.Sort)
	case c.Nulls > NullsLast:
		return fmt.Errorf("has unknown place of NULLs %d", c.Nulls)
	case c.Type < TypeInt64 || c.Type > TypeUUID:
		return fmt.Errorf("has unknown type %d", c.Type)
	}
	return nil
}

// desc reports whether values fall when the column is read in the given direction.
func (c Column) desc(direction Direction) bool { return (c.Sort == Desc) != (direction == Backward) }

// nullsLast reports whether a nullable column's NULLs come last in the given direction.
func (c Column) nullsLast(direction Direction) bool {
	return (c.Nulls == NullsLast) != (direction == Backward)
}

func (c Column) suffix(direction Direction) string {
	s := " ASC"
	if c.desc(direction) {
		s = " DESC"
	}
	switch {
	case c.Nulls == NotNull:
		return s // the default of each direction, which every index has
	case c.nullsLast(direction):
		return s + " NULLS LAST"
	default:
		return s + " NULLS FIRST"
	}
}

// Fingerprint identifies the queries that a token is valid for: an ordering and filters. A token
// made under one fingerprint is refused under another.
type Fingerprint [16]byte

// Filter is one condition of a query, as part of a [Fingerprint].
type Filter struct {
	Name   string
	Values []string
}

// Fingerprint hashes the ordering and the filters. Every name and value is preceded by its length,
// so no two different lists hash the same text. Order matters: if it has no meaning to the query,
// as in a set of tags, sort the values first. Leave out what may change from page to page, such as
// the page size; include everything that distinguishes one list from another with the same columns.
func (o *Ordering) Fingerprint(filters ...Filter) Fingerprint {
	var room [512]byte
	b := append(room[:0], o.fingerprint...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(filters)))
	for _, f := range filters {
		b = appendText(b, f.Name)
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.Values)))
		for _, v := range f.Values {
			b = appendText(b, v)
		}
	}
	sum := sha256.Sum256(b)
	return Fingerprint(sum[:len(Fingerprint{})])
}

// appendText appends s with its length in front.
func appendText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}
