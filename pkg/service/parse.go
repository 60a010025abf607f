package service

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// ConfigError is a bad setting: the program's exit code is 2, and nothing was started.
type ConfigError struct {
	// Variable is the full name of the environment variable, or of a flag that has none.
	Variable string
	Err      error
}

func (e *ConfigError) Error() string { return e.Variable + ": " + e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// Bad returns err as a *ConfigError of the setting with this name, such as NATS_URL, or nil if err
// is nil.
func Bad(setting string, err error) error {
	if err == nil {
		return nil
	}
	return &ConfigError{Prefix + setting, err}
}

// known are the names of all settings' flags.
var known = func() (names []string) {
	all := reflect.TypeFor[settings]()
	for i := range all.NumField() {
		group := all.Field(i).Type
		for j := range group.NumField() {
			names = append(names, group.Field(j).Tag.Get("name"))
		}
	}
	return names
}()

// Variable returns the environment variable of a setting's flag.
func Variable(flag string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// parsers parse the values of flags, by the type in their tags.
var parsers = []kong.Option{
	kong.KindMapper(reflect.String, parser(func(s string, _ *kong.Value) (string, error) { return s, nil })),
	kong.NamedMapper("list", parser(parseList)),
	kong.NamedMapper("duration", parser(parseDuration)),
	kong.NamedMapper("age", parser(orOff(parseDuration))),
	kong.NamedMapper("size", parser(orOff(parseSize))),
	kong.NamedMapper("count", parser(parseCount)),
	kong.NamedMapper("share", parser(parseShare)),
	kong.NamedMapper("listen", parser(parseListen)),
	kong.NamedMapper("base-url", parser(parseBaseURL)),
	kong.NamedMapper("server-or-off", parser(parseServerOrOff)),
	kong.NamedMapper("choice", parser(parseChoice)),
	kong.NamedMapper("file", parser(parseFile)),
	kong.NamedMapper("secret", parser(parseSecret)),
}

// parser makes a kong mapper from a function. An empty value means the default or, without one, the
// zero value. The error is a *ConfigError: kong's own would quote the value, which may be a
// password.
func parser[T any](parse func(s string, v *kong.Value) (T, error)) kong.Mapper {
	return kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		token := ctx.Scan.Pop()
		if token.IsEOL() {
			return errors.New("needs a value")
		}
		s := token.String()
		if s == "" {
			s = ctx.Value.Default
		}
		if s == "" {
			target.SetZero()
			return nil
		}
		parsed, err := parse(s, ctx.Value)
		if err != nil {
			name := "--" + ctx.Value.Name
			if slices.Contains(known, ctx.Value.Name) {
				name = Variable(ctx.Value.Name)
			}
			return &ConfigError{name, err}
		}
		target.Set(reflect.ValueOf(parsed).Convert(target.Type()))
		return nil
	})
}

// Off is the value of a setting that is "off".
const Off = -1

func orOff[T int64 | time.Duration](parse func(string, *kong.Value) (T, error)) func(string, *kong.Value) (T, error) {
	return func(s string, v *kong.Value) (T, error) {
		if s == "off" || s == "0" {
			return Off, nil
		}
		return parse(s, v)
	}
}

func parseList(s string, _ *kong.Value) ([]string, error) {
	parts := strings.Split(s, ",")
	for i := range parts {
		if parts[i] = strings.TrimSpace(parts[i]); parts[i] == "" {
			return nil, errors.New("has an empty entry")
		}
	}
	return parts, nil
}

func parseDuration(s string, _ *kong.Value) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a duration above zero, such as 90s, 30m or 720h", s)
	}
	return d, nil
}

var units = map[string]int64{
	"": 1, "B": 1,
	"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}

func parseSize(s string, _ *kong.Value) (int64, error) {
	digits := strings.TrimRight(strings.ToUpper(strings.TrimSpace(s)), "KMGTIB")
	unit, known := units[strings.ToUpper(strings.TrimSpace(s))[len(digits):]]
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || !known || n <= 0 || n > (1<<62)/unit {
		return 0, fmt.Errorf("%q is not a size above zero, such as 500MB or 200GiB", s)
	}
	return n * unit, nil
}

// maxCount bounds every setting that is a count.
const maxCount = 1_000_000

func parseCount(s string, _ *kong.Value) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxCount {
		return 0, fmt.Errorf("%q is not a whole number from 1 to %d", s, maxCount)
	}
	return n, nil
}

func parseShare(s string, _ *kong.Value) (float64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || !(n > 0 && n <= 1) {
		return 0, fmt.Errorf("%q is not a number above 0 and up to 1", s)
	}
	return n, nil
}

func parseChoice(s string, v *kong.Value) (string, error) {
	words := v.EnumSlice()
	if !slices.Contains(words, s) {
		last := len(words) - 1
		return "", fmt.Errorf("%q is not %s or %s", s, strings.Join(words[:last], ", "), words[last])
	}
	return s, nil
}

func parseListen(s string, _ *kong.Value) (string, error) {
	_, port, err := net.SplitHostPort(s)
	if err != nil || !isPort(port) {
		return "", fmt.Errorf("%q is not host:port", s)
	}
	return s, nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// parseBaseURL accepts an absolute http or https URL, and returns it without a trailing slash.
func parseBaseURL(s string, _ *kong.Value) (string, error) {
	s = strings.TrimRight(s, "/")
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Port() != "" && !isPort(u.Port()) {
		return "", errors.New("is not an absolute URL such as https://tags.example or https://example.com/tags")
	}
	return s, nil
}

// parseServerOrOff accepts a base URL without a path, and returns "" for off.
func parseServerOrOff(s string, v *kong.Value) (string, error) {
	if s == "off" {
		return "", nil
	}
	s, err := parseBaseURL(s, v)
	if err != nil || strings.Count(s, "/") > 2 {
		return "", errors.New("is not a server's URL such as https://public.api.bsky.app")
	}
	return s, nil
}

// parseFile accepts the path of a readable file.
func parseFile(path string, _ *kong.Value) (string, error) {
	_, err := os.ReadFile(path)
	return path, err
}

// parseSecret returns the trimmed content of a file.
func parseSecret(path string, _ *kong.Value) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		return "", fmt.Errorf("file %s is empty", path)
	}
	return secret, nil
}
