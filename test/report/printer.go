package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Printer writes Markdown until the first error.
type Printer struct {
	w   io.Writer
	err error
}

// NewPrinter returns a printer on w.
func NewPrinter(w io.Writer) *Printer { return &Printer{w: w} }

// Err returns the first error of writing.
func (p *Printer) Err() error { return p.err }

// Text writes text like fmt.Fprintf.
func (p *Printer) Text(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// Table writes a table, cell by cell.
func (p *Printer) Table(head []string, rows ...[]string) {
	p.Text("\n| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		p.Text("| %s |\n", strings.Join(row, " | "))
	}
}

// Verdict describes whether a limit is met.
func Verdict(met bool) string {
	if met {
		return "yes"
	}
	return "**no**"
}

// Millis returns d in milliseconds.
func Millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Count formats a count with separated thousands.
func Count(counts ...int) string {
	var all []string
	for _, n := range counts {
		s := strconv.Itoa(n)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		all = append(all, s)
	}
	return strings.Join(all, " and ")
}
