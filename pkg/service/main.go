package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"
	"golang.org/x/term"

	"github.com/tagstream/tagstream/pkg/userinfo"
)

// Exit codes of every program.
const (
	exitOK     = 0
	exitFailed = 1
	exitConfig = 2
)

// Program is what Main runs.
type Program struct {
	Name string
	// About describes the program in a sentence or two.
	About string
	// Verbs points to a struct of the program's commands, as package kong reads it. It embeds
	// Common. A verb that runs until it is stopped has the tag serves:"", and stopping it is
	// success. Any other verb fails if it is stopped before its end: callers must not continue as
	// if it had done its work. A verb's Run may take a context.Context and a *Process. A
	// *ConfigError makes the exit code 2.
	Verbs any
}

// Process is the environment of a verb.
type Process struct {
	Program        string
	Stdout, Stderr io.Writer
	// Terminal reports that Stdout is a terminal, for a person to read.
	Terminal bool
	// Local finds the servers of a program that runs on this machine, for settings that name none.
	// It may be nil.
	Local Local
}

// Local finds the private servers of a running all-in-one program.
type Local interface {
	// NATS returns the URL of its stream.
	NATS() (url string, err error)
	// Database returns the URL of its index for one of the roles owner, indexer and api.
	Database(role string) (url string, err error)
}

// Common has the commands of every program.
type Common struct {
	Health     Health                       `cmd:"" help:"ask the running program whether it is ready; exit 1 with the reason if not"`
	Completion kongplete.InstallCompletions `cmd:"" help:"print the completion set-up for your login shell"`
	Help       help                         `cmd:"" help:"print the help of a command"`
	Version    kong.VersionFlag             `name:"version" help:"print the version"`
}

// help is --help as a command.
type help struct {
	Command []string `arg:"" optional:""`
}

func (h *help) AfterApply(ctx *kong.Context) error {
	_, err := ctx.Kong.Parse(append(h.Command, "--help"))
	return err
}

// Main runs the program with the process's arguments, environment and signals, and exits. SIGINT,
// SIGTERM and SIGHUP end the command's context; a second signal ends the process immediately. An
// ignored SIGHUP, as under nohup, stays ignored.
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
	process := &Process{Program: p.Name, Stdout: stdout, Stderr: stderr}
	if f, ok := stdout.(*os.File); ok {
		process.Terminal = term.IsTerminal(int(f.Fd()))
	}
	done := false
	parser, err := p.parser(environ, kong.Writers(stdout, stderr), kong.Exit(func(int) { done = true }),
		kong.Bind(process), kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		panic(err) // a mistake of ours
	}
	if slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "COMP_LINE=") }) {
		kongplete.Complete(parser) // a shell asks
		return exitOK
	}
	verb, err := parse(parser, args)
	switch {
	case done: // --help or --version
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return exitConfig
	}
	err = verb.RunNode(verb.Selected()) // Context.Run would wrap the error
	if err == nil {
		return exitOK
	}
	serves := verb.Selected().Tag.Has("serves")
	stopped := ctx.Err() != nil && isStop(err)
	switch {
	case !stopped || !bare(err):
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
	case !serves:
		fmt.Fprintf(stderr, "%s %s: stopped before its end: %v\n", p.Name, verb.Selected().Path(), context.Cause(ctx))
	}
	var bad *ConfigError
	switch {
	case stopped && serves:
		return exitOK
	case errors.As(err, &bad):
		return exitConfig
	}
	return exitFailed
}

// parser reads the program's command line, and takes settings that are missing there from environ
// ("NAME=value" as in os.Environ).
func (p Program) parser(environ []string, more ...kong.Option) (*kong.Kong, error) {
	options := slices.Concat(parsers, []kong.Option{
		kong.Name(p.Name), kong.Description(p.About), kong.Vars(defaults(p.Name)), kong.Vars{"version": p.Name + " " + Version()},
		kong.WithHyphenPrefixedParameters(true), // an age, such as -3d
		kong.Resolvers(environment(environ)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: helpWidth}),
		kong.ValueFormatter(describe),
		kong.Help(func(o kong.HelpOptions, ctx *kong.Context) error {
			if err := CheckEnvironment(environ); err != nil {
				return err
			}
			return kong.DefaultHelpPrinter(o, ctx)
		}),
	}, more)
	return kong.New(p.Verbs, options...)
}

// helpWidth is the width of help texts.
const helpWidth = 100

// describe returns the help text of a flag.
func describe(v *kong.Value) string {
	text := v.Help
	if v.Flag != nil && v.HasDefault && v.Default != "" {
		text += " (default " + v.Default + ")"
	}
	if slices.Contains(known, v.Name) {
		text += " [" + Variable(v.Name) + "]"
	}
	return text
}

// environment resolves settings from environment variables. One with our prefix that is no setting
// of any program is an error; a setting of another program is not, so that one environment can
// serve a whole deployment.
type environment []string

func (e environment) Validate(*kong.Application) error { return CheckEnvironment(e) }

// CheckEnvironment returns a *ConfigError for a variable with our prefix that is no setting.
func CheckEnvironment(environ []string) error {
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, Prefix) && !slices.ContainsFunc(known, func(flag string) bool { return Variable(flag) == name }) {
			return &ConfigError{name, errors.New("unknown variable; see --help for the known ones")}
		}
	}
	return nil
}

func (e environment) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !slices.Contains(known, flag.Name) {
		return nil, nil
	}
	var value any
	for _, kv := range e {
		if name, s, _ := strings.Cut(kv, "="); name == Variable(flag.Name) && s != "" {
			value = s
		}
	}
	return value, nil
}

// parse reads the command line. The error is a *ConfigError, or contains no URL.
func parse(parser *kong.Kong, args []string) (*kong.Context, error) {
	node := parser.Model.Node
	for i, arg := range args {
		if len(node.Children) == 0 || strings.HasPrefix(arg, "-") {
			break
		}
		child := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == arg })
		if child < 0 {
			return nil, fmt.Errorf("unknown command %q (see --help)", userinfo.Redact(strings.Join(args[:i+1], " ")))
		}
		node = node.Children[child]
	}
	ctx, err := parser.Parse(args)
	var bad *ConfigError
	switch {
	case errors.As(err, &bad):
		return nil, bad
	case err != nil:
		return nil, fmt.Errorf("%s (see --help)", userinfo.Redact(err.Error()))
	}
	return ctx, nil
}

// Parse reads settings into the groups of a struct, for the program of that name.
func Parse(program string, into any, args, environ []string) error {
	parser, err := Program{Name: program, Verbs: into}.parser(environ)
	if err != nil {
		return err
	}
	_, err = parse(parser, args)
	return err
}

// Settings returns all settings of all programs, in the order of the docs.
func Settings() []*kong.Flag {
	return Program{Verbs: &settings{}}.flags()[1:] // behind --help
}

// Reads reports whether a verb of the program reads a setting, by its variable.
func (p Program) Reads(name string) bool {
	return slices.ContainsFunc(p.flags(), func(f *kong.Flag) bool { return Variable(f.Name) == name })
}

// flags returns the flags of the program's verbs.
func (p Program) flags() (flags []*kong.Flag) {
	parser, err := p.parser(nil)
	if err != nil {
		panic(err) // a mistake of ours
	}
	_ = kong.Visit(parser.Model, func(v kong.Visitable, next kong.Next) error { // nothing fails
		if f, ok := v.(*kong.Flag); ok {
			flags = append(flags, f)
		}
		return next(nil)
	})
	return flags
}

// isStop reports whether err says only that the context ended: an error joined to it, such as one
// of closing something, is a failure.
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

// bare reports whether err wraps nothing, so says only that the context ended.
func bare(err error) bool { return errors.Unwrap(err) == nil }

// version is set by the linker if the build does not see the repository.
var version string

// Version returns the version of the build: the module's, or its commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return cmp.Or(version, info.Main.Version, "(devel)") + " " + info.GoVersion
}
