package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table is the output of a verb: a table if a person at a terminal reads it, else lines of JSON.
type Table struct {
	rows *tabwriter.Writer // nil for JSON
	json *json.Encoder
}

// Table starts an output with this header, if any.
func (p *Process) Table(header ...any) *Table {
	if !p.Terminal {
		enc := json.NewEncoder(p.Stdout)
		enc.SetEscapeHTML(false)
		return &Table{json: enc}
	}
	t := &Table{rows: tabwriter.NewWriter(p.Stdout, 0, 0, 2, ' ', 0)}
	if len(header) > 0 {
		_ = t.Row(nil, header...) // kept until Close
	}
	return t
}

// Row adds a row, or v as a line of JSON. Rows contain no terminal control characters.
func (t *Table) Row(v any, cells ...any) error {
	if t.rows == nil {
		return t.json.Encode(v)
	}
	text := make([]string, len(cells))
	for i, cell := range cells {
		text[i] = strings.ReplaceAll(Plain(fmt.Sprint(cell)), "\n", ".")
	}
	_, err := io.WriteString(t.rows, strings.Join(text, "\t")+"\n")
	return err
}

// Close prints the remaining rows.
func (t *Table) Close() error {
	if t.rows == nil {
		return nil
	}
	return t.rows.Flush()
}

// Plain returns s with each terminal control character replaced by a dot. Texts from hosts and
// messages are printed this way.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '.'
		}
		return r
	}, s)
}

// Answer prints one result: a text for a person at a terminal, else v as a line of JSON.
func (p *Process) Answer(v any, text string) error {
	t := p.Table()
	return errors.Join(t.Row(v, text), t.Close())
}
