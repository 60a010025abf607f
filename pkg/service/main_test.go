package service_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/service"
)

const patience = time.Minute

// asProgram makes the test binary behave like one of our programs.
const asProgram = "SERVICE_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		service.Main(program())
		panic("Main returned")
	}
	if signal.Ignored(syscall.SIGHUP) { // under nohup; children would ignore it, too
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	os.Exit(m.Run())
}

var errBroken = errors.New("the disk is broken")

// program has a verb for each behavior that the tests need.
func program() service.Program {
	return service.Program{Name: service.Ingest, About: "Does what tests want.", Verbs: &struct {
		Run         waits `cmd:"" default:"withargs" serves:"" help:"wait to be stopped"`
		Cause       waits `cmd:"" serves:"" help:"return why"`
		Task        waits `cmd:"" help:"do not get done"`
		Serving     waits `cmd:"" serves:"" help:"say where"`
		Interrupted waits `cmd:"" help:"say where"`
		Broken      waits `cmd:"" serves:"" help:"fail to close"`
		Stubborn    waits `cmd:"" help:"do not stop"`
		Fail        fails `cmd:"" help:"fail"`
		Misfit      waits `cmd:"" help:"have a bad setting"`
		Echo        echo  `cmd:"" help:"print"`
		service.Common
	}{}}
}

type waits struct{}

func (waits) Run(ctx context.Context, k *kong.Context) error {
	verb := k.Selected().Name
	if verb == "misfit" {
		return fmt.Errorf("start: %w", service.Bad("NATS_URL", errors.New("is far away")))
	}
	fmt.Println("running")
	<-ctx.Done()
	switch verb {
	case "cause":
		return context.Cause(ctx)
	case "task":
		return ctx.Err()
	case "serving":
		return fmt.Errorf("stopped at message 7: %w", ctx.Err())
	case "interrupted":
		return fmt.Errorf("interrupted at message 7: %w", ctx.Err())
	case "broken":
		return errors.Join(context.Cause(ctx), fmt.Errorf("close: %w", errBroken))
	case "stubborn":
		fmt.Println("asked")
		select {}
	}
	return nil
}

type fails struct{}

func (fails) Run() error { return errBroken }

type echo struct {
	Limit int `type:"count" default:"3" placeholder:"N" help:"print N"`
	service.NATS
}

func (e echo) Run() error {
	fmt.Println(e.Limit, e.URL)
	return nil
}

// run runs the program inside the test.
func run(t *testing.T, args string, environ ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = program().Run(t.Context(), strings.Fields(args), environ, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestProgram(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, args, environ string
		code                int
		out, err            string // contained text; "" means empty
	}{
		{name: "fails", args: "fail", code: 1, err: "ingest: the disk is broken\n"},
		{name: "bad setting", args: "misfit", code: 2, err: "ingest: start: TAGSTREAM_NATS_URL: is far away\n"},
		{name: "unknown variable", args: "fail", environ: "TAGSTREAM_FOO=1", code: 2, err: "ingest: TAGSTREAM_FOO: unknown variable"},
		{name: "unknown command", args: "bogus", code: 2, err: "ingest: unknown command \"bogus\" (see --help)\n"},
		{name: "unknown flag", args: "fail --bogus", code: 2, err: "ingest: unknown flag --bogus (see --help)\n"},
		{name: "flag of another command", args: "fail --limit 1", code: 2, err: "-limit"},
		{name: "flag without command", args: "--bogus", code: 2, err: "-bogus"},
		{name: "bad flag", args: "echo --limit x", code: 2, err: "-limit"},
		{name: "argument", args: "fail now", code: 2, err: "unexpected argument now"},
		{name: "help", args: "--help", out: "Usage: ingest <command> [flags]"},
		{name: "help lists commands", args: "-h", out: "  interrupted    say where\n"},
		{name: "help command", args: "help", out: "Usage: ingest <command> [flags]"},
		{name: "help command of a command", args: "help echo", out: "Usage: ingest echo [flags]"},
		{name: "help command of nothing", args: "help bogus", code: 2, err: "unexpected argument bogus"},
		{name: "a number in place of a flag", args: "echo 5", code: 2, err: "unexpected argument 5"},
		{name: "help of a command", args: "echo --help", out: "Usage: ingest echo [flags]"},
		{name: "help with a bad environment", args: "--help", environ: "TAGSTREAM_FOO=1", code: 2, err: "TAGSTREAM_FOO"},
		{name: "version", args: "--version", out: "ingest "},
		{name: "version of a command", args: "echo --version", out: "ingest "},
		{name: "version with a bad environment", args: "--version", environ: "TAGSTREAM_FOO=1", out: "ingest "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var environ []string
			if c.environ != "" {
				environ = []string{c.environ}
			}
			code, out, errs := run(t, c.args, environ...)
			require.Equal(t, c.code, code, errs)
			requireText(t, c.out, out)
			requireText(t, c.err, errs)
			if code != 0 {
				require.Equal(t, 1, strings.Count(errs, "\n"), "want one line")
			}
		})
	}
}

func requireText(t *testing.T, want, got string) {
	t.Helper()
	if want == "" {
		require.Empty(t, got)
	} else {
		require.Contains(t, got, want)
	}
}

// TestSignals stops real processes.
func TestSignals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		command string
		signal  syscall.Signal
		code    int
		err     string
	}{
		{command: "run", signal: syscall.SIGTERM},
		{command: "run", signal: syscall.SIGINT},
		{command: "run", signal: syscall.SIGHUP},
		{command: "task", signal: syscall.SIGHUP, code: 1, err: "ingest task: stopped before its end: hangup signal received\n"},
		{command: "cause", signal: syscall.SIGTERM},
		{command: "serving", signal: syscall.SIGTERM, err: "ingest: stopped at message 7: context canceled\n"},
		{command: "task", signal: syscall.SIGTERM, code: 1, err: "ingest task: stopped before its end: terminated signal received\n"},
		{command: "task", signal: syscall.SIGINT, code: 1, err: "ingest task: stopped before its end: interrupt signal received\n"},
		{command: "interrupted", signal: syscall.SIGTERM, code: 1, err: "ingest: interrupted at message 7: context canceled\n"},
		{command: "broken", signal: syscall.SIGTERM, code: 1, err: "close: the disk is broken"},
	} {
		t.Run(c.command+" "+c.signal.String(), func(t *testing.T) {
			t.Parallel()
			p := start(t, c.command)
			p.requireLine(t, "running")
			require.NoError(t, p.Process.Signal(c.signal))
			require.Equal(t, c.code, p.wait(t))
			requireText(t, c.err, p.errs.text())
		})
	}
	t.Run("nohup", func(t *testing.T) {
		t.Parallel()
		p := startAs(t, "nohup", os.Args[0], "task")
		p.requireLine(t, "running")
		require.NoError(t, p.Process.Signal(syscall.SIGHUP))
		require.NoError(t, p.Process.Signal(syscall.SIGTERM))
		require.Equal(t, 1, p.wait(t))
		require.Contains(t, p.errs.text(), "terminated signal received")
	})
	t.Run("the second signal kills", func(t *testing.T) {
		t.Parallel()
		p := start(t, "stubborn")
		p.requireLine(t, "running")
		require.NoError(t, p.Process.Signal(syscall.SIGTERM))
		p.requireLine(t, "asked")
		// The default action is restored only after the context ends.
		ended := make(chan int, 1)
		go func() { ended <- p.wait(t) }()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			_ = p.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
				require.Equal(t, syscall.SIGTERM, p.ProcessState.Sys().(syscall.WaitStatus).Signal())
				return
			case <-tick.C:
			}
		}
	})
}

func TestFlagsReachCommand(t *testing.T) {
	t.Parallel()
	p := start(t, "echo", "--limit=7", "--nats-url", "nats://flag")
	p.requireLine(t, "7 nats://flag")
	require.Zero(t, p.wait(t))
}

type process struct {
	*exec.Cmd
	out  *bufio.Scanner
	errs lines
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startAs(t, os.Args[0], args...)
}

func startAs(t *testing.T, name string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	p := &process{Cmd: exec.CommandContext(ctx, name, args...)}
	p.Env = []string{"PATH=" + os.Getenv("PATH"), asProgram + "=1", "TAGSTREAM_NATS_URL=nats://env"}
	p.Stderr = &p.errs
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewScanner(out)
	require.NoError(t, p.Start())
	return p
}

func (p *process) requireLine(t *testing.T, want string) {
	t.Helper()
	require.True(t, p.out.Scan(), p.errs.text())
	require.Equal(t, want, p.out.Text())
}

func (p *process) wait(t *testing.T) int {
	t.Helper()
	_ = p.Wait() // the exit code has the result
	return p.ProcessState.ExitCode()
}
