package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tagstream/tagstream/test/process"
)

// Figure is one measurement, with its peer's.
type Figure struct {
	Name, Peer, Unit string
	// Ours and Theirs have one value per round. Without Theirs, the bar applies to Ours.
	Ours, Theirs []float64
	// Bar is the minimum of the ratio or, if AtMost is set, the maximum; 0 is none.
	Bar    float64
	AtMost bool
}

// Ratio returns the median of the rounds' ratios.
func (f Figure) Ratio() float64 {
	if len(f.Theirs) == 0 {
		return median(f.Ours)
	}
	all := make([]float64, len(f.Ours))
	for i := range all {
		all[i] = f.Ours[i] / f.Theirs[i]
	}
	return median(all)
}

// Met reports whether the bar is reached.
func (f Figure) Met() bool {
	if f.AtMost {
		return f.Ratio() <= f.Bar
	}
	return f.Ratio() >= f.Bar
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// Work is the CPU time of the processes per unit.
type Work struct {
	What    string
	PerUnit map[string]time.Duration // by process
}

// postgresCPU returns the CPU time of all the server's processes.
func (s *installation) postgresCPU() (time.Duration, error) {
	sum, err := process.CPU(s.pg.PID())
	if err != nil {
		return 0, err
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.pg.PID()))
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			return 0, fmt.Errorf("read the children of Postgres: %w", err)
		}
		for word := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return 0, fmt.Errorf("read the children of Postgres: %w", err)
			}
			if spent, err := process.CPU(pid); err == nil { // it may have ended; then it counts as waited for
				sum += spent
			}
		}
	}
	return sum, nil
}

// worked returns the CPU time of each process while fn runs. Processes that fn starts count from
// their start; "postgres" is always included.
func (s *installation) worked(fn func() error, programs ...func() *process.Program) (map[string]time.Duration, error) {
	read := func() (map[string]time.Duration, error) {
		out := map[string]time.Duration{}
		for _, of := range programs {
			p := of()
			if p == nil {
				continue
			}
			if _, ended := p.Ended(); ended {
				continue
			}
			spent, err := process.CPU(p.PID())
			if err != nil {
				return nil, err
			}
			out[fmt.Sprint(p.Name, " ", p.PID())] = spent
		}
		var err error
		out["postgres"], err = s.postgresCPU()
		return out, err
	}
	before, err := read()
	if err != nil {
		return nil, err
	}
	if err := fn(); err != nil {
		return nil, err
	}
	after, err := read()
	if err != nil {
		return nil, err
	}
	out := map[string]time.Duration{}
	for name, spent := range after {
		out[strings.Fields(name)[0]] += spent - before[name]
	}
	return out, nil
}

// spend adds the CPU time for n units to the report; a later round replaces it.
func (r *runner) spend(what string, n int, worked map[string]time.Duration) {
	for name := range worked {
		worked[name] /= time.Duration(max(n, 1))
	}
	r.report.Work = slices.DeleteFunc(r.report.Work, func(w Work) bool { return w.What == what })
	r.report.Work = append(r.report.Work, Work{What: what, PerUnit: worked})
}

// turns runs each of the functions in each round, one after the other, in alternating order.
func (r *runner) turns(ctx context.Context, fns ...func() error) error {
	for round := range r.cfg.Rounds {
		for i := range fns {
			if round%2 == 1 {
				i = len(fns) - 1 - i
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := fns[i](); err != nil {
				return err
			}
		}
	}
	return nil
}

// figure adds a figure to the report.
func (r *runner) figure(f Figure) {
	r.report.Figures = append(r.report.Figures, f)
	r.say("%s", strings.Join(f.row(), " | "))
}
