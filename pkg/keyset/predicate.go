package keyset

import (
	"fmt"
	"strconv"
	"strings"
)

// Seek is the SQL that reads rows in one direction from a position, in two forms that select the
// same rows.
type Seek struct {
	// Where is one condition, to be joined to others with AND.
	//
	// If all columns have one direction and are never NULL, it is a row comparison, such as (a, b)
	// < ($1, $2): on an index over the ordering it reads exactly the rows it returns. Otherwise it
	// is written with OR. The index then still gives the order, but rows are read and dropped:
	// those that tie with the position in the first columns and, if NULLs of the first column
	// follow the position, all rows from the start of the list. Use that form only for small lists;
	// otherwise use Branches.
	Where string

	// Branches split those rows into ranges, the nearest to the position first: every row of one
	// branch comes before every row of the next. Each is a single range of an index over the
	// ordering. To read exactly the page's rows, run the branches one after another, each with
	// ORDER BY OrderBy and a LIMIT of the rows still missing, or all of them with Union. There is
	// one branch if Where is a row comparison, none if nothing can follow, and at most two per
	// column.
	Branches []Branch

	// OrderBy is the text that follows ORDER BY, for Where and for each branch.
	OrderBy string

	// Args are the values of the placeholders in Where and in Union, and NextArg is the first free
	// number after them.
	Args    []any
	NextArg int

	outer string // OrderBy over output names
}

// Branch is one range of the rows that a [Seek] selects.
type Branch struct {
	// Where is its condition, to be joined to others with AND.
	Where string
	// Args are the values of its placeholders: the first ones of the Seek's, since farther ranges
	// depend on fewer columns.
	Args []any
}

// Seek returns the SQL for the rows that follow from when reading in the given direction.
// Placeholders are numbered from firstArg, which is 1 in a query without others. It fails if from
// was not made for this ordering: a wrong number of values, a value of another type, or a NULL in a
// column declared NotNull. A position that [Codec.Decode] returned for this ordering's fingerprint
// never fails.
func (o *Ordering) Seek(direction Direction, from Position, firstArg int) (Seek, error) {
	direction &= 1
	s := Seek{OrderBy: o.orderBy[direction], outer: o.names[direction], NextArg: firstArg}
	if err := o.check(from); err != nil {
		return Seek{}, err
	}
	switch {
	case from.Unbounded(direction):
		s.Where, s.Branches = "TRUE", []Branch{{Where: "TRUE"}}
		return s, nil
	case from.Exhausted(direction):
		s.Where = "FALSE"
		return s, nil
	}

	b := builder{direction: direction, columns: o.columns, key: from.Key, args: make([]any, 0, len(from.Key))}
	for i, v := range from.Key {
		if !v.IsNull() {
			b.placeholder[i] = "$" + strconv.Itoa(s.NextArg)
			b.args = append(b.args, v.Arg())
			s.NextArg++
		}
		b.used[i+1] = len(b.args)
	}
	s.Args = b.args
	s.Branches = b.branches(from.Includes(direction))
	s.Where = b.where(s.Branches)
	return s, nil
}

// Union returns one statement that reads all branches, each by its own index range, and returns the
// first rows of them in order. selectFrom is a query up to its WHERE, such as "SELECT posts, name
// FROM tags", and must return the ordering's columns under their names; filter is a further
// condition or empty; limit is a number or a placeholder. Its cost does not depend on the depth or
// on ties: with two columns it reads limit rows and at most one more of each branch but the
// nearest; with more columns, at most limit rows of each branch. Postgres sorts the limit rows of a
// branch that has a column equal to the position's, since it cannot see that they are in order
// already.
func (s Seek) Union(selectFrom, filter, limit string) string {
	if filter != "" {
		filter = "(" + filter + ") AND "
	}
	one := func(where string) string {
		return selectFrom + " WHERE " + filter + where + " ORDER BY " + s.OrderBy + " LIMIT " + limit
	}
	switch len(s.Branches) {
	case 0:
		return one("FALSE")
	case 1:
		return one(s.Branches[0].Where)
	}
	var b strings.Builder
	b.WriteString("SELECT * FROM (")
	for i, branch := range s.Branches {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		b.WriteString("(" + one(branch.Where) + ")")
	}
	b.WriteString(") AS page ORDER BY " + s.outer + " LIMIT " + limit)
	return b.String()
}

func (o *Ordering) check(p Position) error {
	switch p.Side {
	case SideStart, SideEnd:
		if len(p.Key) != 0 {
			return fmt.Errorf("keyset: position at an end of the list has %d key values", len(p.Key))
		}
		return nil
	case SideAbove, SideBelow, SideAt:
	default:
		return fmt.Errorf("keyset: position has unknown side %d", p.Side)
	}
	if len(p.Key) != len(o.columns) {
		return fmt.Errorf("keyset: position has %d key values, the ordering %d columns", len(p.Key), len(o.columns))
	}
	for i, v := range p.Key {
		c := o.columns[i]
		switch {
		case v.IsNull() && c.Nulls == NotNull:
			return fmt.Errorf("keyset: position has NULL in column %q, which is declared without", c.Name)
		case !v.IsNull() && v.kind != c.Type:
			return fmt.Errorf("keyset: position has type %d in column %q of type %d", v.kind, c.Name, c.Type)
		}
	}
	return nil
}

// builder writes the conditions of one Seek.
type builder struct {
	direction   Direction
	columns     []Column
	key         []Value
	args        []any               // the key's values that are not NULL
	placeholder [MaxColumns]string  // empty where the key is NULL
	used        [MaxColumns + 1]int // how many args the first columns have
}

// branches walks the columns from the last to the first. Rows that agree with the key in all
// columns before a run and follow it in that run are nearer than rows that follow it in an earlier
// run.
func (b *builder) branches(inclusive bool) []Branch {
	var out []Branch
	for end := len(b.columns); end > 0; {
		start := b.runStart(end)
		out = b.follows(out, start, end, inclusive)
		end, inclusive = start, false // only the last run can hold the key's own row
	}
	return out
}

// runStart returns the start of the run of columns that ends before end: columns without NULLs and
// with the same direction are compared together as one row.
func (b *builder) runStart(end int) int {
	last := b.columns[end-1]
	start := end - 1
	for last.Nulls == NotNull && start > 0 {
		c := b.columns[start-1]
		if c.Nulls != NotNull || c.Sort != last.Sort {
			break
		}
		start--
	}
	return start
}

// equal returns the condition that the columns before end have the key's values.
func (b *builder) equal(end int) string {
	var s strings.Builder
	for i, c := range b.columns[:end] {
		if i > 0 {
			s.WriteString(" AND ")
		}
		s.WriteString(c.Expr)
		if b.key[i].IsNull() {
			s.WriteString(" IS NULL")
		} else {
			s.WriteString(" = " + b.placeholder[i])
		}
	}
	return s.String()
}

// follows appends the ranges of rows that agree with the key before a run and follow it in the run,
// nearest first.
func (b *builder) follows(out []Branch, start, end int, inclusive bool) []Branch {
	prefix := b.equal(start)
	add := func(condition string, columns int) {
		switch {
		case prefix == "" && condition == "":
			condition = "TRUE"
		case condition == "":
			condition = prefix
		case prefix != "":
			condition = prefix + " AND " + condition
		}
		n := b.used[columns]
		out = append(out, Branch{Where: condition, Args: b.args[:n:n]})
	}
	c := b.columns[start]
	if c.Nulls == NotNull {
		add(b.compare(start, end, inclusive), end)
		return out
	}
	switch null, last := b.key[start].IsNull(), c.nullsLast(b.direction); {
	case null && last && inclusive:
		add(c.Expr+" IS NULL", start)
	case null && last: // nothing follows
	case null && inclusive: // NULLs come first: all follow
		add("", start)
	case null:
		add(c.Expr+" IS NOT NULL", start)
	default:
		add(b.compare(start, end, inclusive), end)
		if last {
			add(c.Expr+" IS NULL", start)
		}
	}
	return out
}

// compare compares a run of columns with the key, as one row if the run has more than one column.
func (b *builder) compare(start, end int, inclusive bool) string {
	op := " > "
	if b.columns[start].desc(b.direction) {
		op = " < "
	}
	if inclusive {
		op = strings.TrimRight(op, " ") + "= "
	}
	if end-start == 1 {
		return b.columns[start].Expr + op + b.placeholder[start]
	}
	left := make([]string, 0, MaxColumns)
	for _, c := range b.columns[start:end] {
		left = append(left, c.Expr)
	}
	return "(" + strings.Join(left, ", ") + ")" + op + "(" + strings.Join(b.placeholder[start:end], ", ") + ")"
}

// where joins the branches with OR. The condition in front of them is redundant, but an index can
// start at it, which it cannot at an OR alone.
func (b *builder) where(branches []Branch) string {
	switch len(branches) {
	case 0:
		return "FALSE"
	case 1:
		return branches[0].Where
	}
	conditions := make([]string, len(branches))
	for i, branch := range branches {
		conditions[i] = branch.Where
	}
	all := "(" + strings.Join(conditions, " OR ") + ")"
	end := len(b.columns)
	for start := b.runStart(end); start > 0; start = b.runStart(end) {
		end = start
	}
	bound := b.follows(nil, 0, end, true)
	if len(bound) != 1 || bound[0].Where == "TRUE" {
		return all
	}
	return bound[0].Where + " AND " + all
}
