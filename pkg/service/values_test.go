package service_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/service"
)

func parse(t testing.TB, program string, args, environ []string) (*service.Values, error) {
	t.Helper()
	return service.Parse(program, args, environ, &bytes.Buffer{}, "", nil)
}

func mustParse(t testing.TB, program string, args, environ []string) *service.Values {
	t.Helper()
	v, err := parse(t, program, args, environ)
	require.NoError(t, err)
	return v
}

func TestParse(t *testing.T) {
	t.Parallel()
	const url = "TAGSTREAM_NATS_URL"
	for _, c := range []struct {
		name    string
		environ []string
		args    []string
		want    string
		set     bool
	}{
		{name: "default", want: "nats://127.0.0.1:4222"},
		{name: "variable", environ: []string{url + "=nats://a"}, want: "nats://a", set: true},
		{name: "empty variable", environ: []string{url + "="}, want: "nats://127.0.0.1:4222"},
		{name: "flag", args: []string{"--nats-url", "nats://b"}, want: "nats://b", set: true},
		{name: "flag with =", args: []string{"-nats-url=nats://b=c"}, want: "nats://b=c", set: true},
		{name: "flag wins", environ: []string{url + "=nats://a"}, args: []string{"--nats-url=nats://b"}, want: "nats://b", set: true},
		{name: "empty flag wins", environ: []string{url + "=nats://a"}, args: []string{"--nats-url="}, want: "nats://127.0.0.1:4222"},
		{name: "the last flag", args: []string{"--nats-url=a", "--nats-url=b"}, want: "b", set: true},
		{name: "value with =", environ: []string{url + "=nats://a?x=y"}, want: "nats://a?x=y", set: true},
		{name: "others' variables", environ: []string{"TAGSTREAM_CURSOR_KEYS_FILE=k", "HOME=/", "TAGSTREAMX=1", "=C:=x", "TAGSTREAM"}, want: "nats://127.0.0.1:4222"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := mustParse(t, service.Ingest, c.args, c.environ)
			require.Equal(t, c.want, v.String("NATS_URL"))
			require.Equal(t, c.set, v.IsSet("NATS_URL"))
			require.NoError(t, v.Err())
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		environ, args []string
		variable      string // of a ConfigError
		says          string
	}{
		{name: "unknown variable", environ: []string{"TAGSTREAM_NATS_URLS=x"}, variable: "TAGSTREAM_NATS_URLS", says: "unknown variable"},
		{name: "unknown and empty", environ: []string{"TAGSTREAM_FOO="}, variable: "TAGSTREAM_FOO"},
		{name: "lower case", environ: []string{"TAGSTREAM_nats_url=x"}, variable: "TAGSTREAM_nats_url"},
		{name: "prefix alone", environ: []string{"TAGSTREAM_=x"}, variable: "TAGSTREAM_"},
		{name: "unknown flag", args: []string{"--nats-urls=x"}, says: "-nats-urls"},
		{name: "another program's flag", args: []string{"--cursor-keys-file=x"}, says: "-cursor-keys-file"},
		{name: "flag without value", args: []string{"--nats-url"}, says: "-nats-url"},
		{name: "argument", args: []string{"--nats-url=x", "y"}, says: `unexpected argument "y"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(t, service.Ingest, c.args, c.environ)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "\n")
			if c.variable != "" {
				var bad *service.ConfigError
				require.ErrorAs(t, err, &bad)
				require.Equal(t, c.variable, bad.Variable)
				require.ErrorContains(t, err, c.variable+": ")
			}
		})
	}
}

func TestGetters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	bytesOf := func(v *service.Values) any { return v.Bytes("STREAM_MAX_BYTES") }
	duration := func(v *service.Values) any { return v.Duration("STREAM_MAX_AGE") }
	number := func(v *service.Values) any { return v.Int("STREAM_REPLICAS", 1, 5) }
	listen := func(v *service.Values) any { return v.Listen("OPS_LISTEN") }
	list := func(v *service.Values) any { return v.List("JETSTREAM_HOSTS") }
	secret := func(v *service.Values) any { return v.Secret("JETSTREAM_API_KEY_FILE") }
	choice := func(v *service.Values) any { return v.Choice("LOG_FORMAT", "text", "json") }
	required := func(v *service.Values) any { return v.Required("STREAM_MAX_AGE", "such as 1h") }
	for _, c := range []struct {
		setting string
		get     func(*service.Values) any
		good    map[string]any // "" is not set
		bad     []string
	}{
		{
			setting: "STREAM_MAX_BYTES", get: bytesOf,
			good: map[string]any{
				"": int64(0), "1": int64(1), "1000": int64(1000), "5B": int64(5), "5kb": int64(5000), "5KiB": int64(5 << 10), "500MB": int64(500e6),
				"3 GB": int64(3e9), "200GiB": int64(200 << 30), " 1 TiB ": int64(1 << 40), "2tb": int64(2e12), "4194304TiB": int64(1) << 62,
			},
			bad: []string{"0", "0GB", "-1", "-1GB", "1.5GB", "GB", "B", "1PB", "1BB", "1GBB", "1G", "1K", "x", "1GB2", "0x10", "1e9", " ", "4194305TiB", "99999999999999999999", "1 000"},
		},
		{
			setting: "STREAM_MAX_AGE", get: duration,
			good: map[string]any{"": time.Duration(0), "90s": 90 * time.Second, "720h": 720 * time.Hour, "1h30m": 90 * time.Minute, "1ns": time.Nanosecond},
			bad:  []string{"0", "0s", "-1h", "1", "1d", "1 h", "h", "x", "9999999999h", " 1h"},
		},
		{
			setting: "STREAM_REPLICAS", get: number,
			good: map[string]any{"": 1, "1": 1, "5": 5, "3": 3},
			bad:  []string{"0", "6", "-1", "1.0", "x", " 1", "99999999999999999999"},
		},
		{
			setting: "OPS_LISTEN", get: listen,
			good: map[string]any{"": "127.0.0.1:9091", ":0": ":0", "[::1]:80": "[::1]:80", "host:65535": "host:65535"},
			bad:  []string{"host", "host:", "host:http", "host:65536", "host:-1", "::1:80", "http://host:80"},
		},
		{
			setting: "JETSTREAM_HOSTS", get: list,
			good: map[string]any{"a": []string{"a"}, "a,b": []string{"a", "b"}, " a , b ": []string{"a", "b"}},
			bad:  []string{",", "a,", ",a", "a,,b", " "},
		},
		{
			setting: "JETSTREAM_API_KEY_FILE", get: secret,
			good: map[string]any{"": "", write("good", " hush \n"): "hush"},
			bad:  []string{write("empty", " \n"), filepath.Join(dir, "none"), dir},
		},
		{setting: "LOG_FORMAT", get: choice, good: map[string]any{"": "text", "json": "json"}, bad: []string{"JSON", "xml", " "}},
		{setting: "STREAM_MAX_AGE", get: required, good: map[string]any{"1h": "1h"}, bad: []string{""}},
	} {
		for raw, want := range c.good {
			v := mustParse(t, service.Ingest, nil, []string{service.Prefix + c.setting + "=" + raw})
			require.Equal(t, want, c.get(v), "%s=%q", c.setting, raw)
			require.NoError(t, v.Err(), "%s=%q", c.setting, raw)
		}
		for _, raw := range c.bad {
			v := mustParse(t, service.Ingest, nil, []string{service.Prefix + c.setting + "=" + raw})
			c.get(v)
			var bad *service.ConfigError
			require.ErrorAs(t, v.Err(), &bad, "%s=%q", c.setting, raw)
			require.Equal(t, service.Prefix+c.setting, bad.Variable)
			require.NotContains(t, v.Err().Error(), "\n")
		}
	}
}

func TestErrIsTheFirst(t *testing.T) {
	t.Parallel()
	v := mustParse(t, service.Ingest, nil, []string{"TAGSTREAM_STREAM_MAX_AGE=x", "TAGSTREAM_STREAM_MAX_BYTES=y"})
	v.Bytes("STREAM_MAX_BYTES")
	v.Duration("STREAM_MAX_AGE")
	v.Fail("NATS_URL", fmt.Errorf("late"))
	require.ErrorContains(t, v.Err(), `TAGSTREAM_STREAM_MAX_BYTES: "y" is not a size`)
}

func TestUndeclaredSettingPanics(t *testing.T) {
	t.Parallel()
	v := mustParse(t, service.Ingest, nil, nil)
	require.Panics(t, func() { v.String("CURSOR_KEYS_FILE") }, "a mistake of ours shows at once")
}

func TestEachProgramHasItsOpsPort(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]string{
		service.Standalone: "127.0.0.1:9090", service.Ingest: "127.0.0.1:9091", service.Indexer: "127.0.0.1:9092", service.API: "127.0.0.1:9093",
	} {
		require.Equal(t, want, mustParse(t, program, nil, nil).Listen("OPS_LISTEN"))
	}
}

func TestSettingsTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range service.Settings {
		require.False(t, seen[s.Name], s.Name)
		seen[s.Name] = true
		require.NotEmpty(t, s.Programs, s.Name)
		require.NotEmpty(t, s.Arg, s.Name)
		require.False(t, strings.HasSuffix(s.Usage, "."), s.Name)
		require.Equal(t, strings.ToUpper(s.Name), s.Name)
	}
}

func TestHelpTellsAll(t *testing.T) {
	t.Parallel()
	for _, program := range []string{service.Ingest, service.Indexer, service.API, service.Standalone} {
		var out bytes.Buffer
		_, err := service.Parse(program, []string{"--help"}, nil, &out, "usage line", func(fs *flag.FlagSet) {
			fs.Int("limit", 100, "print the newest `N` entries")
			fs.Bool("restart", false, "start over")
		})
		require.ErrorIs(t, err, flag.ErrHelp)
		help := out.String()
		require.True(t, strings.HasPrefix(help, "usage line\n"))
		require.Contains(t, help, "  --limit N\n      print the newest N entries (default 100)\n")
		require.Contains(t, help, "  --restart\n      start over\n")
		for _, s := range service.Settings {
			reads := strings.Contains(strings.Join(s.Programs, " ")+" ", program+" ")
			require.Equal(t, reads, strings.Contains(help, service.Prefix+s.Name+"\n"), "%s of %s", s.Name, program)
		}
		for _, line := range strings.Split(help, "\n") {
			require.Equal(t, strings.TrimRight(line, " "), line)
			if !strings.Contains(line, "://") { // what cannot be broken
				require.LessOrEqual(t, len(line), 88, line)
			}
		}
	}
}

// TestHelpOfWhatIsEmbedded: the all-in-one program has no default for what it brings itself.
func TestHelpOfWhatIsEmbedded(t *testing.T) {
	t.Parallel()
	for program, shown := range map[string]bool{service.Ingest: true, service.Indexer: true, service.Standalone: false} {
		var out bytes.Buffer
		_, err := service.Parse(program, []string{"--help"}, nil, &out, "", nil)
		require.ErrorIs(t, err, flag.ErrHelp)
		require.Equal(t, shown, strings.Contains(out.String(), "nats://127.0.0.1:4222"), out.String())
	}
}
