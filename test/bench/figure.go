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

// Figure is one thing that was measured, beside its peer.
type Figure struct {
	Name, Peer, Unit string
	// Ours and Theirs have a value of each round. Without Theirs the bar is one of Ours.
	Ours, Theirs []float64
	// Bar is what the ratio is to reach, or, where it is AtMost, not to exceed; 0 is none.
	Bar    float64
	AtMost bool
}

// Ratio is the median of the rounds' ratios.
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

// Work is what the processes worked for one of something.
type Work struct {
	What    string
	PerUnit map[string]time.Duration // by process
}

// clockTick is the kernel's unit of a process's time; it is the same on every Linux of today.
const clockTick = 10 * time.Millisecond

// cpu is what a process has worked until now, with the children that it waited for.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the times of process %d: %w", pid, err)
	}
	// The name, in brackets, may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the times of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// postgresCPU is what the server has worked until now, in all its processes.
func (s *installation) postgresCPU() (time.Duration, error) {
	sum, err := cpu(s.pg.PID())
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
			if spent, err := cpu(pid); err == nil { // it may have ended, and counts as waited for
				sum += spent
			}
		}
	}
	return sum, nil
}

// worked returns what each process works while fn runs. Processes that fn starts count from their
// start; "postgres" is always there.
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
			spent, err := cpu(p.PID())
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

// spend adds what was worked for n of something to the report; a later round replaces it.
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
