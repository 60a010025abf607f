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

// logEvery is how often long work logs its progress where there is no terminal.
const logEvery = 10 * time.Second

// Bar shows the progress of long work: a bar with rate and time to go on a
// terminal, a log line now and then otherwise. It is safe for concurrent use.
type Bar struct {
	logger *slog.Logger
	what   string

	bar *progressbar.ProgressBar // nil without a terminal

	mu     sync.Mutex
	begun  time.Time // of the first At; guarded by mu, as the rest
	first  uint64    // what was done by then
	logged time.Time
}

// NewBar returns a bar on out. what is the work, unit what it counts.
func NewBar(out *os.File, logger *slog.Logger, what, unit string) *Bar {
	b := &Bar{logger: logger, what: what}
	if term.IsTerminal(int(out.Fd())) {
		b.bar = newTerminalBar(out, what, unit)
	}
	return b
}

func newTerminalBar(out io.Writer, what, unit string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(1,
		progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit),
		progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionUseANSICodes(true))
}

// At says that done of total are done; both may have started above zero, and
// total may grow.
func (b *Bar) At(done, total uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.begun.IsZero() {
		b.begun, b.logged, b.first = now, now, done
	}
	if b.bar != nil {
		b.bar.ChangeMax64(int64(max(total, 1)))
		_ = b.bar.Set64(int64(min(done, total))) // the terminal is gone: nothing to say it to
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
	if b.bar != nil {
		_ = b.bar.Exit() // as above
	}
}
