package obs

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// logEvery is how often long work logs its progress if there is no terminal.
const logEvery = 10 * time.Second

// bars counts the bars on a terminal. Writers hold its lock.
var bars struct {
	sync.Mutex
	n int
}

// clearLine clears the terminal's current line.
const clearLine = "\r\x1b[2K"

// besideBars is a log writer for a terminal with bars: a log line replaces the bar's line, and the
// bar is redrawn below it at its next step.
type besideBars struct{ io.Writer }

func (w besideBars) Write(p []byte) (int, error) {
	bars.Lock()
	defer bars.Unlock()
	if bars.n > 0 {
		_, _ = io.WriteString(w.Writer, clearLine) // as with the line itself: no one to tell
	}
	return w.Writer.Write(p)
}

// barLine is the writer that the bar uses for the terminal.
type barLine struct{ io.Writer }

func (w barLine) Write(p []byte) (int, error) {
	bars.Lock()
	defer bars.Unlock()
	return w.Writer.Write(p)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Bar shows the progress of long work: on a terminal a bar with rate and remaining time, otherwise
// a periodic log line. It is safe for concurrent use.
type Bar struct {
	logger *slog.Logger
	what   string

	out io.Writer
	bar *progressbar.ProgressBar // nil without a terminal

	mu     sync.Mutex
	full   bool      // guarded by mu, as the rest
	begun  time.Time // of the first At
	first  uint64    // what was done by then
	logged time.Time
}

// NewBar returns a bar on out. what names the work, unit what it counts.
func NewBar(out *os.File, logger *slog.Logger, what, unit string) *Bar {
	return newBar(out, isTerminal(out), logger, what, unit)
}

func newBar(out io.Writer, terminal bool, logger *slog.Logger, what, unit string) *Bar {
	b := &Bar{logger: logger, what: what, out: out}
	if !terminal {
		return b
	}
	b.out = barLine{out}
	bars.Lock()
	bars.n++
	bars.Unlock()
	b.bar = progressbar.NewOptions64(1,
		progressbar.OptionSetWriter(b.out), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit),
		progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionUseANSICodes(true))
	return b
}

// At reports that done of total are done; both may start above zero, and total may grow.
func (b *Bar) At(done, total uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.begun.IsZero() {
		b.begun, b.logged, b.first = now, now, done
	}
	if b.bar != nil {
		// A full bar never moves again, but the total may grow: leave the last step to Close.
		total = max(total, 1)
		b.full = done >= total
		b.bar.ChangeMax64(int64(total))
		_ = b.bar.Set64(int64(min(done, total-1))) // the terminal is gone: nothing to say it to
		return
	}
	if now.Sub(b.logged) < logEvery {
		return
	}
	b.logged = now
	rate := float64(done-min(b.first, done)) / now.Sub(b.begun).Seconds()
	toGo := "unknown"
	if left := total - min(done, total); rate > 0 {
		toGo = time.Duration(float64(left) / rate * float64(time.Second)).Round(time.Second).String()
	}
	b.logger.Info(b.what, "done", done, "total", total, "perSecond", int(rate), "toGo", toGo)
}

// Say announces a step of the work.
func (b *Bar) Say(step string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil {
		b.bar.Describe(fmt.Sprintf("%s: %s", b.what, step))
		return
	}
	b.logger.Info(b.what, "step", step)
}

// Close ends the bar's line on the terminal.
func (b *Bar) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar == nil {
		return
	}
	if b.full {
		_ = b.bar.Finish() // as above
	}
	fmt.Fprintln(b.out)
	bars.Lock()
	bars.n--
	bars.Unlock()
}
