package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tagstream/tagstream/pkg/store/query"
)

// node is a node of a plan as EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) prints it.
type node struct {
	Type     string  `json:"Node Type"`
	Part     string  `json:"Parent Relationship"`
	Strategy string  `json:"Strategy"` // of an aggregate
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"`
	Loops    float64 `json:"Actual Loops"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Heap     float64 `json:"Heap Fetches"`
	Plans    []node
}

// name returns the node's type as in EXPLAIN's text format.
func (n node) name() string {
	if n.Type == "Aggregate" {
		switch n.Strategy {
		case "Hashed":
			return "HashAggregate"
		case "Mixed":
			return "MixedAggregate, hashed"
		case "Sorted":
			return "GroupAggregate"
		}
	}
	return n.Type
}

func (n node) each(fn func(node)) {
	fn(n)
	for _, c := range n.Plans {
		c.each(fn)
	}
}

// Plan is what Postgres did for all statements of a page.
type Plan struct {
	// Sorts are the nodes that sort or hash their input before they return the first row.
	Sorts []string
	// Access are the distinct ways in which the lists of keys are read.
	Access []string
	// ListRows counts the rows that nodes over the lists of keys returned or dropped, Heap the heap
	// fetches of index-only scans, Filtered the rows that were read and dropped anywhere.
	ListRows, Heap, Filtered int
	// Outline is the tree, as text.
	Outline string
}

// lists are the tables that must only be read through a covering index, except to look up a tag's
// id by its name.
var lists = []string{"post_tags", "post_langs", "tags"}

const tagByName = "tags_name_key"

// add adds a statement's plan.
func (p *Plan) add(root node) {
	root.each(func(n node) {
		loops := max(n.Loops, 0)
		p.Filtered += int(n.Filtered * loops)
		switch {
		case strings.Contains(n.Type, "Sort"), strings.Contains(strings.ToLower(n.name()), "hash"):
			p.Sorts = append(p.Sorts, n.name())
		case n.isList():
			p.ListRows += int((n.Rows + n.Filtered) * loops)
			p.Heap += int(n.Heap)
			if !slices.Contains(p.Access, n.Type) {
				p.Access = append(p.Access, n.Type)
			}
		}
	})
	if p.Outline != "" {
		p.Outline += "\n"
	}
	p.Outline += strings.Join(outline(root, 0), "\n") + "\n"
}

// isList reports whether the node reads a list.
func (n node) isList() bool { return slices.Contains(lists, n.Relation) && n.Index != tagByName }

// isAside reports whether the node's part of a plan did not run, or runs once and reads no list,
// like the look-up of a tag's id.
func (n node) isAside() bool {
	aside := n.Part == "InitPlan" || n.Loops == 0
	n.each(func(n node) { aside = aside && !n.isList() })
	return aside
}

// outline returns a plan as lines, without asides. Branches that differ only in their numbers are
// listed once.
func outline(n node, depth int) []string {
	n.Plans = slices.DeleteFunc(slices.Clone(n.Plans), node.isAside)
	name := n.name()
	if n.Index != "" {
		name += " on " + n.Index
	} else if n.Relation != "" {
		name += " on " + n.Relation
	}
	line := fmt.Sprintf("%s%s  rows=%.0f", strings.Repeat("  ", depth), name, n.Rows)
	if n.Loops != 1 {
		line += fmt.Sprintf(" loops=%.0f", n.Loops)
	}
	if n.Filtered > 0 {
		line += fmt.Sprintf(" dropped=%.0f", n.Filtered)
	}
	lines := []string{line}
	for i := 0; i < len(n.Plans); {
		same := 1
		rows := n.Plans[i].Rows
		for i+same < len(n.Plans) && alike(n.Plans[i], n.Plans[i+same]) {
			rows += n.Plans[i+same].Rows
			same++
		}
		sub := outline(n.Plans[i], depth+1)
		if same > 1 {
			sub[0] = fmt.Sprintf("%s  (first of %d like it, rows=%.0f in all)", sub[0], same, rows)
		}
		lines = append(lines, sub...)
		i += same
	}
	return lines
}

func alike(a, b node) bool {
	if a.Type != b.Type || a.Index != b.Index || a.Relation != b.Relation || len(a.Plans) != len(b.Plans) {
		return false
	}
	for i := range a.Plans {
		if !alike(a.Plans[i], b.Plans[i]) {
			return false
		}
	}
	return true
}

// check returns an error if a plan is not as our page requires.
func (p Plan) check() error {
	switch {
	case len(p.Sorts) > 0:
		return fmt.Errorf("there is a %s in the plan", p.Sorts[0])
	case len(p.Access) != 1 || p.Access[0] != "Index Only Scan":
		return fmt.Errorf("keys are read by %s, not by index-only scans alone", strings.Join(p.Access, ", "))
	case p.Heap > 0:
		return fmt.Errorf("%d heap fetches after vacuum", p.Heap)
	}
	return nil
}

// planOurs explains the reader's statements for one page, with the reader's own settings.
func (s *index) planOurs(ctx context.Context, all []query.Statement) (Plan, error) {
	var p Plan
	for _, statement := range all {
		out, err := s.reader.Explain(ctx, statement)
		if err != nil {
			return p, err
		}
		if err := p.parse(out); err != nil {
			return p, err
		}
	}
	return p, nil
}

// planRival explains a rival's prepared statement, with Postgres's default settings.
func (s *index) planRival(ctx context.Context, statement query.Statement) (Plan, error) {
	var p Plan
	err := s.rivalConn(ctx, func(conn *pgx.Conn) error {
		const name = "explained"
		prepared, err := conn.Prepare(ctx, name, statement.SQL)
		if err != nil {
			return err
		}
		params := make([]string, len(prepared.ParamOIDs))
		for i, oid := range prepared.ParamOIDs {
			text, err := conn.TypeMap().Encode(oid, pgtype.TextFormatCode, statement.Args[i], []byte{})
			if err != nil {
				return err
			}
			params[i] = "'" + strings.ReplaceAll(string(text), "'", "''") + "'"
		}
		var out []byte
		err = conn.QueryRow(ctx, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE "+name+"("+strings.Join(params, ", ")+")",
			pgx.QueryExecModeSimpleProtocol).Scan(&out)
		return errors.Join(err, conn.Deallocate(ctx, name), p.parse(out))
	})
	if err != nil {
		return p, fmt.Errorf("explain %s: %w", strings.Join(strings.Fields(statement.SQL), " "), err)
	}
	return p, nil
}

// parse adds the output of EXPLAIN.
func (p *Plan) parse(out []byte) error {
	var plans []struct{ Plan node }
	if err := json.Unmarshal(out, &plans); err != nil {
		return fmt.Errorf("read a plan: %w", err)
	}
	for _, one := range plans {
		p.add(one.Plan)
	}
	return nil
}
