package service

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/userinfo"
)

// ConfigError is a bad setting: the program's exit code is 2 and nothing was
// started.
type ConfigError struct {
	// Variable is the environment variable's full name.
	Variable string
	Err      error
}

func (e *ConfigError) Error() string { return e.Variable + ": " + e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// Values are the settings of one program as given. Its getters parse; the
// first value that does not parse is kept for Err.
type Values struct {
	program string
	raw     map[string]string
	set     map[string]bool
	err     error
}

// Parse reads a program's settings from environ ("NAME=value" as os.Environ
// gives them) and from args, which must hold flags only. extra, if not nil,
// adds the flags of one command. The error is flag.ErrHelp after --help
// (printed to out), a *ConfigError, or a usage error.
func Parse(program string, args, environ []string, out io.Writer, usage string, extra func(*flag.FlagSet)) (*Values, error) {
	v := &Values{program: program, raw: map[string]string{}, set: map[string]bool{}}
	known := map[string]bool{}
	for _, s := range Settings {
		known[s.Name] = true
	}
	mine := settingsOf(program)
	for _, s := range mine {
		v.raw[s.Name] = s.Default
	}
	defaults := maps.Clone(v.raw)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		name, ours := strings.CutPrefix(name, Prefix)
		if !ours {
			continue
		}
		if !known[name] {
			return nil, &ConfigError{Prefix + name, errors.New("unknown variable; see --help for the known ones")}
		}
		if _, reads := v.raw[name]; reads && value != "" {
			v.raw[name], v.set[name] = value, true
		}
	}
	fs := flag.NewFlagSet(program, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if extra != nil {
		extra(fs)
	}
	var own []string
	fs.VisitAll(func(f *flag.Flag) { own = append(own, f.Name) })
	for _, s := range mine {
		fs.Func(flagName(s.Name), s.Usage, func(value string) error {
			// Empty is not set, as with a variable; but the flag wins.
			v.raw[s.Name], v.set[s.Name] = value, value != ""
			if value == "" {
				v.raw[s.Name] = defaults[s.Name]
			}
			return nil
		})
	}
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printHelp(out, usage, fs, own, mine)
		return nil, flag.ErrHelp
	case err != nil:
		return nil, fmt.Errorf("%s (see --help)", userinfo.Redact(err.Error()))
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q (see --help)", userinfo.Redact(fs.Arg(0)))
	}
	// Where to listen is asked for late, when other things have begun already:
	// have it in Err from the start.
	for _, s := range mine {
		if s.Arg == listenArg {
			v.Listen(s.Name)
		}
	}
	return v, nil
}

func flagName(setting string) string {
	return strings.ToLower(strings.ReplaceAll(setting, "_", "-"))
}

// helpWidth is how wide a help text may be.
const helpWidth = 88

func printHelp(out io.Writer, usage string, fs *flag.FlagSet, own []string, mine []Setting) {
	fmt.Fprintln(out, strings.TrimSpace(usage))
	if len(own) > 0 {
		fmt.Fprintln(out, "\nFlags of this command:")
		for _, name := range own {
			f := fs.Lookup(name)
			arg, text := flag.UnquoteUsage(f)
			printFlag(out, name, arg, "", text, f.DefValue)
		}
	}
	fmt.Fprintln(out, "\nSettings, as a flag or as the environment variable below it:")
	for _, s := range mine {
		printFlag(out, flagName(s.Name), s.Arg, Prefix+s.Name, s.Usage, s.Default)
	}
	fmt.Fprintln(out, "\nOther flags:\n  --help     print this\n  --version  print the version")
}

func printFlag(out io.Writer, name, arg, variable, text, def string) {
	fmt.Fprintln(out, strings.TrimSuffix("  --"+name+" "+arg, " "))
	if variable != "" {
		fmt.Fprintln(out, "      "+variable)
	}
	// A flag that is off or zero unless it is given needs no word on that.
	if def != "" && def != "false" && def != "0" && def != "0s" {
		text += " (default " + def + ")"
	}
	line := "     "
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > helpWidth && strings.TrimSpace(line) != "" {
			fmt.Fprintln(out, line)
			line = "     "
		}
		line += " " + word
	}
	fmt.Fprintln(out, line)
}

// Err is the first bad value that a getter met, a *ConfigError, or nil. What
// getters return beside one is not to be used.
func (v *Values) Err() error { return v.err }

// Fail records that a setting's value is bad, for checks that the getters do
// not make.
func (v *Values) Fail(name string, err error) {
	if v.err == nil {
		v.err = &ConfigError{Prefix + name, err}
	}
}

// IsSet reports whether the setting was given, not left to its default.
func (v *Values) IsSet(name string) bool { return v.set[name] }

// String returns the setting as written.
func (v *Values) String(name string) string {
	s, ok := v.raw[name]
	if !ok {
		panic("service: " + v.program + " reads undeclared setting " + name)
	}
	return s
}

// Required is String for a setting without which the program cannot start.
func (v *Values) Required(name, hint string) string {
	s := v.String(name)
	if s == "" {
		v.Fail(name, errors.New("must be set: "+hint))
	}
	return s
}

// Choice returns the setting, which must be one of the given words.
func (v *Values) Choice(name string, words ...string) string {
	s := v.String(name)
	if !slices.Contains(words, s) {
		last := len(words) - 1
		v.Fail(name, fmt.Errorf("%q is not %s or %s", s, strings.Join(words[:last], ", "), words[last]))
	}
	return s
}

// List splits the setting at commas; empty parts are refused.
func (v *Values) List(name string) []string {
	parts := strings.Split(v.String(name), ",")
	for i := range parts {
		if parts[i] = strings.TrimSpace(parts[i]); parts[i] == "" {
			v.Fail(name, errors.New("has an empty entry"))
		}
	}
	return parts
}

// Duration returns the setting as a duration above zero, 0 where not set.
func (v *Values) Duration(name string) time.Duration {
	s := v.String(name)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		v.Fail(name, fmt.Errorf("%q is not a duration above zero, such as 90s, 30m or 720h", s))
	}
	return d
}

// Int returns the setting as a whole number from lo to hi.
func (v *Values) Int(name string, lo, hi int) int {
	n, err := strconv.Atoi(v.String(name))
	if err != nil || n < lo || n > hi {
		v.Fail(name, fmt.Errorf("%q is not a whole number from %d to %d", v.String(name), lo, hi))
	}
	return n
}

// Share returns the setting as a number above 0 and up to 1.
func (v *Values) Share(name string) float64 {
	n, err := strconv.ParseFloat(v.String(name), 64)
	if err != nil || !(n > 0 && n <= 1) {
		v.Fail(name, fmt.Errorf("%q is not a number above 0 and up to 1", v.String(name)))
	}
	return n
}

var units = map[string]int64{
	"": 1, "B": 1,
	"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}

// Bytes returns the setting as a size above zero, 0 where not set.
func (v *Values) Bytes(name string) int64 {
	s := v.String(name)
	if s == "" {
		return 0
	}
	digits := strings.TrimRight(strings.ToUpper(strings.TrimSpace(s)), "KMGTIB")
	unit, known := units[strings.ToUpper(strings.TrimSpace(s))[len(digits):]]
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || !known || n <= 0 || n > (1<<62)/unit {
		v.Fail(name, fmt.Errorf("%q is not a size above zero, such as 500MB or 200GiB", s))
		return 0
	}
	return n * unit
}

// BaseURL returns the setting as an absolute http or https URL without a slash at its end, "" where
// not set.
func (v *Values) BaseURL(name string) string {
	s := strings.TrimRight(v.String(name), "/")
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		v.Fail(name, errors.New("is not an absolute URL such as https://tags.example or https://example.com/tags"))
	}
	return s
}

// Listen returns the setting as a host:port to listen on.
func (v *Values) Listen(name string) string {
	s := v.String(name)
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		v.Fail(name, fmt.Errorf("%q is not host:port", s))
	}
	return s
}

// Secret returns the trimmed content of the file that the setting names, ""
// where not set.
func (v *Values) Secret(name string) string {
	path := v.String(name)
	if path == "" {
		return ""
	}
	data, err := os.ReadFile(path)
	if err != nil {
		v.Fail(name, err)
		return ""
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		v.Fail(name, fmt.Errorf("file %s is empty", path))
	}
	return secret
}
