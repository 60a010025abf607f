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
// and exits. SIGINT and SIGTERM end the command's context; a second signal
// ends the process at once.
func Main(p Program) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // from here the default action of signals is back
	}()
	os.Exit(p.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// Run is Main without the process: it returns the exit code.
func (p Program) Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	cmd := p.Commands[0]
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		i := slices.IndexFunc(p.Commands, func(c Command) bool { return c.Name == args[0] })
		if i < 0 {
			fmt.Fprintf(stderr, "%s: unknown command %q (see --help)\n", p.Name, args[0])
			return exitConfig
		}
		cmd, args = p.Commands[i], args[1:]
	}
	if slices.Contains(args, "--version") || slices.Contains(args, "-version") {
		fmt.Fprintln(stdout, p.Name, Version())
		return exitOK
	}
	values, err := Parse(p.Name, args, environ, stdout, p.usage(cmd), cmd.Flags)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return exitConfig
	}
	err = cmd.Run(ctx, values)
	var bad *ConfigError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &bad):
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return exitConfig
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitOK // stopped as asked
	}
	fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
	return exitFailed
}

func (p Program) usage(cmd Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", p.Name, p.About)
	if len(p.Commands) == 1 {
		fmt.Fprintf(&b, "Usage: %s [flags]\n", p.Name)
		return b.String()
	}
	fmt.Fprintf(&b, "Usage: %s [command] [flags]\n\nCommands (%s where none is named):\n", p.Name, p.Commands[0].Name)
	for _, c := range p.Commands {
		mark := " "
		if c.Name == cmd.Name {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %-10s %s\n", mark, c.Name, c.Summary)
	}
	return b.String()
}

// Version is the version of the build: the module's, or its commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
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
