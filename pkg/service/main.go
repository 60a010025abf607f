package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/tagstream/tagstream/pkg/userinfo"
)

// Exit codes of every program.
const (
	exitOK     = 0
	exitFailed = 1
	exitConfig = 2
)

// Command is one thing that a program does.
type Command struct {
	Name string
	// Summary is a line for the list of commands.
	Summary string
	// Flags adds flags of the command's own; it may be nil.
	Flags func(*flag.FlagSet)
	// Serves says that it runs until it is stopped, so that a stop is success.
	// Another command that is stopped before its end has failed: who waits for
	// it must not go on as if it had done its work.
	Serves bool
	// Run does it. A *ConfigError makes the exit code 2.
	Run func(ctx context.Context, v *Values) error
}

// Program is what Main runs.
type Program struct {
	Name string
	// About is what it does, in a sentence or two.
	About string
	// Commands; the first runs where the arguments name none.
	Commands []Command
}

// Main runs the program with the process's arguments, environment and signals,
// and exits. SIGINT, SIGTERM and SIGHUP end the command's context; a second signal
// ends the process at once. A SIGHUP that is to be ignored, as nohup has it, is.
func Main(p Program) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	go func() {
		<-ctx.Done()
		stop() // from here the default action of signals is back
	}()
	os.Exit(p.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// Run is Main without the process: it returns the exit code.
func (p Program) Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	p.Commands = append(slices.Clip(p.Commands), healthCommand())
	cmd := p.Commands[0]
	named := len(args) > 0 && !strings.HasPrefix(args[0], "-")
	if named && args[0] == "help" {
		args, named = append([]string{"--help"}, args[1:]...), false
	}
	if named {
		i := slices.IndexFunc(p.Commands, func(c Command) bool { return c.Name == args[0] })
		if i < 0 {
			fmt.Fprintf(stderr, "%s: unknown command %q (see --help)\n", p.Name, userinfo.Redact(args[0]))
			return exitConfig
		}
		cmd, args = p.Commands[i], args[1:]
	}
	if slices.Contains(args, "--version") || slices.Contains(args, "-version") {
		fmt.Fprintln(stdout, p.Name, Version())
		return exitOK
	}
	values, err := Parse(p.Name, args, environ, stdout, p.usage(cmd, named), cmd.Flags)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return exitConfig
	}
	err = cmd.Run(ctx, values)
	if err == nil {
		return exitOK
	}
	stopped := ctx.Err() != nil && isStop(err)
	switch {
	case !stopped || !bare(err):
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
	case !cmd.Serves:
		fmt.Fprintf(stderr, "%s %s: stopped before its end: %v\n", p.Name, cmd.Name, context.Cause(ctx))
	}
	var bad *ConfigError
	switch {
	case stopped && cmd.Serves:
		return exitOK
	case errors.As(err, &bad):
		return exitConfig
	}
	return exitFailed
}

// isStop reports whether err says that the context ended and nothing else: an
// error beside it, as of closing something, is one.
func isStop(err error) bool {
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if !isStop(inner) {
				return false
			}
		}
		return true
	case interface{ Unwrap() error }:
		return isStop(e.Unwrap())
	}
	return errors.Is(err, context.Canceled)
}

// bare reports whether err has nothing to tell beside that the context ended.
func bare(err error) bool { return errors.Unwrap(err) == nil }

func (p Program) usage(cmd Command, named bool) string {
	var b strings.Builder
	if named {
		fmt.Fprintf(&b, "%s %s: %s\n\nUsage: %s %s [flags]\n", p.Name, cmd.Name, cmd.Summary, p.Name, cmd.Name)
		return b.String()
	}
	fmt.Fprintf(&b, "%s: %s\n\n", p.Name, p.About)
	fmt.Fprintf(&b, "Usage: %s [command] [flags]\n\nCommands (%s where none is named; each has its own --help):\n", p.Name, cmd.Name)
	width := 0
	for _, c := range p.Commands {
		width = max(width, len(c.Name))
	}
	for _, c := range p.Commands {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, c.Name, c.Summary)
	}
	return b.String()
}

// version is set by the linker where the build does not see the repository.
var version string

// Version is the version of the build: the module's, or its commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if version != "" {
		return version + " " + info.GoVersion
	}
	version, dirty := info.Main.Version, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12 && (version == "" || version == "(devel)"):
			version = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if version == "" {
		version = "(devel)"
	}
	if strings.Contains(version, "+dirty") {
		dirty = ""
	}
	return version + dirty + " " + info.GoVersion
}
