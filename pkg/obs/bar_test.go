package obs

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func plainLogger(out io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// TestLogBesideBar: on a terminal, log lines and the bar are on separate lines.
func TestLogBesideBar(t *testing.T) {
	t.Parallel()
	var terminal bytes.Buffer
	logger := plainLogger(besideBars{&terminal})
	b := newBar(&terminal, true, logger, "rebuilding", "messages")
	b.At(1, 100)
	logger.Info("another program is away")
	b.Say("vacuuming")
	logger.Info("it is back")
	b.Close()
	logger.Info("done")
	var lines []string
	for line := range strings.SplitSeq(terminal.String(), "\n") {
		line = line[strings.LastIndex(line, "\x1b[2K")+1:] // what stands there in the end
		lines = append(lines, strings.TrimLeft(strings.TrimPrefix(line, "[2K"), "\r"))
	}
	require.Equal(t, `level=INFO msg="another program is away"`, lines[0])
	require.Equal(t, `level=INFO msg="it is back"`, lines[1])
	require.NotContains(t, lines[2], "level")
	require.Equal(t, "level=INFO msg=done", lines[3])
}

func TestBarInAPipe(t *testing.T) {
	t.Parallel()
	_, pipe, err := os.Pipe()
	require.NoError(t, err)
	defer pipe.Close()
	for _, first := range []uint64{0, 5000} { // from the start, and continuing
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			b := NewBar(pipe, plainLogger(&log), "rebuilding", "messages")
			time.Sleep(time.Hour) // what comes before does not count
			b.At(first, first+100_000)
			for range 9 {
				time.Sleep(time.Second)
				b.At(first, first+100_000)
			}
			require.Empty(t, log.String(), "not too often")
			time.Sleep(time.Second)
			b.At(first+20_000, first+100_000)
			b.At(first+20_001, first+100_000)
			require.Contains(t, log.String(), "level=INFO msg=rebuilding done="+itoa(first+20_000)+" total="+itoa(first+100_000)+" perSecond=2000 toGo=40s\n")
			require.Equal(t, 1, strings.Count(log.String(), "\n"))
			log.Reset()

			time.Sleep(10 * time.Second)
			b.At(first+300_000, first+100_000) // the total is an old one
			require.Contains(t, log.String(), "toGo=0s")
			log.Reset()
			time.Sleep(10 * time.Second)
			b.At(0, 0)
			require.Contains(t, log.String(), "perSecond=0 toGo=unknown")
			log.Reset()
			b.Say("vacuuming")
			require.Equal(t, "level=INFO msg=rebuilding step=vacuuming\n", log.String())
			log.Reset()
			b.Close()
			require.Empty(t, log.String())
		})
	}
}

func itoa(n uint64) string { return slog.Uint64Value(n).String() }

func TestBarOnATerminal(t *testing.T) {
	t.Parallel()
	var log, out bytes.Buffer
	last := func() string {
		all := out.String()
		return all[strings.LastIndex(all, "\r")+1:]
	}
	b := newBar(&out, true, plainLogger(&log), "rebuilding", "messages")
	b.At(0, 0)
	b.At(10, 1000)
	b.At(1500, 1000) // more than the total known
	b.At(2000, 2000)
	b.Say("vacuuming the new index")
	b.At(2000, 3000) // it grew after it was full
	b.Close()
	require.NotContains(t, out.String(), "100%")
	require.True(t, strings.HasSuffix(out.String(), "\n"), "the line is ended: %q", out.String())

	b = newBar(&out, true, plainLogger(&log), "rebuilding", "messages")
	b.At(10, 1000)
	b.At(1000, 1000)
	b.Close()
	require.Contains(t, last(), "100% ")
	require.Contains(t, last(), "(1000/1000, ")
	require.Contains(t, last(), " messages/")
	require.True(t, strings.HasSuffix(out.String(), "\n"), "the line is ended: %q", out.String())
	require.Empty(t, log.String())
}
