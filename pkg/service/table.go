package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table is what a verb answers with: a table for a person at a terminal, else
// lines of JSON.
type Table struct {
	rows *tabwriter.Writer // nil for JSON
	json *json.Encoder
}

// Table begins an answer with this header, if any.
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

// Row adds a row, or v as a line. Other than JSON a row holds no character that
// steers a terminal.
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

// Close prints what is not printed yet.
func (t *Table) Close() error {
	if t.rows == nil {
		return nil
	}
	return t.rows.Flush()
}

// Plain returns s with a dot for each character that steers a terminal. What
// hosts and messages say is printed so.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '.'
		}
		return r
	}, s)
}

// Answer prints one thing: a text for a person at a terminal, else v as a line of JSON.
func (p *Process) Answer(v any, text string) error {
	t := p.Table()
	return errors.Join(t.Row(v, text), t.Close())
}
