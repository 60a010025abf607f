package service_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/tracing"
)

// read parses a group of settings, without kong's tags.
func read[T any](program string, args, environ []string) (T, error) {
	var s struct {
		Group T `embed:""`
	}
	err := service.Parse(program, &s, args, environ)
	return s.Group, err
}

func mustRead[T any](t testing.TB, args ...string) T {
	t.Helper()
	group, err := read[T](service.Ingest, args, nil)
	require.NoError(t, err)
	return group
}

func TestParse(t *testing.T) {
	t.Parallel()
	const url = "TAGSTREAM_NATS_URL"
	for _, c := range []struct {
		name    string
		environ []string
		args    []string
		want    string
	}{
		{name: "default", want: "nats://127.0.0.1:4222"},
		{name: "variable", environ: []string{url + "=nats://a"}, want: "nats://a"},
		{name: "empty variable", environ: []string{url + "="}, want: "nats://127.0.0.1:4222"},
		{name: "flag", args: []string{"--nats-url", "nats://b"}, want: "nats://b"},
		{name: "flag with =", args: []string{"--nats-url=nats://b=c"}, want: "nats://b=c"},
		{name: "flag wins", environ: []string{url + "=nats://a"}, args: []string{"--nats-url=nats://b"}, want: "nats://b"},
		{name: "empty flag wins", environ: []string{url + "=nats://a"}, args: []string{"--nats-url="}, want: "nats://127.0.0.1:4222"},
		{name: "the last flag", args: []string{"--nats-url=a", "--nats-url=b"}, want: "b"},
		{name: "value with =", environ: []string{url + "=nats://a?x=y"}, want: "nats://a?x=y"},
		{name: "others' variables", environ: []string{"TAGSTREAM_CURSOR_KEYS_FILE=k", "HOME=/", "TAGSTREAMX=1", "=C:=x", "TAGSTREAM"}, want: "nats://127.0.0.1:4222"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, err := read[service.NATS](service.Ingest, c.args, c.environ)
			require.NoError(t, err)
			require.Equal(t, c.want, n.URL)
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		environ, args []string
		variable      string // in a ConfigError
		says          string
	}{
		{name: "unknown variable", environ: []string{"TAGSTREAM_NATS_URLS=x"}, variable: "TAGSTREAM_NATS_URLS", says: "unknown variable"},
		{name: "unknown and empty", environ: []string{"TAGSTREAM_FOO="}, variable: "TAGSTREAM_FOO"},
		{name: "lower case", environ: []string{"TAGSTREAM_nats_url=x"}, variable: "TAGSTREAM_nats_url"},
		{name: "prefix alone", environ: []string{"TAGSTREAM_=x"}, variable: "TAGSTREAM_"},
		{name: "unknown flag", args: []string{"--nats-urls=x"}, says: "--nats-urls"},
		{name: "another program's flag", args: []string{"--cursor-keys-file=x"}, says: "--cursor-keys-file"},
		{name: "flag without value", args: []string{"--nats-url"}, says: "--nats-url"},
		{name: "argument", args: []string{"--nats-url=x", "y"}, says: "unexpected argument y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := read[service.NATS](service.Ingest, c.args, c.environ)
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

func TestTypes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	type all struct {
		service.Jetstream
		service.Window
		service.Retention
		service.Copies
		Profiles service.Profiles `embed:""`
		NATS     service.NATS     `embed:""`
		Database service.Database `embed:""`
		HTTP     service.HTTP     `embed:""`
		Feeds    service.Feeds    `embed:""`
		Ops      service.Ops      `embed:""`
		Traces   service.Traces   `embed:""`
		Log      service.Log      `embed:""`
	}
	for _, c := range []struct {
		setting string
		get     func(all) any
		good    map[string]any // "" means not set
		bad     []string
	}{
		{
			setting: "STREAM_MAX_BYTES", get: func(s all) any { return s.MaxBytes },
			good: map[string]any{
				"": int64(0), "1": int64(1), "1000": int64(1000), "5B": int64(5), "5kb": int64(5000), "5KiB": int64(5 << 10), "500MB": int64(500e6),
				"3 GB": int64(3e9), "200GiB": int64(200 << 30), " 1 TiB ": int64(1 << 40), "2tb": int64(2e12), "4194304TiB": int64(1) << 62,
				"off": int64(service.Off), "0": int64(service.Off),
			},
			bad: []string{"0GB", "-1", "-1GB", "1.5GB", "GB", "B", "1PB", "1BB", "1GBB", "1G", "1K", "x", "1GB2", "0x10", "1e9", " ", "4194305TiB", "99999999999999999999", "1 000"},
		},
		{
			setting: "STREAM_MAX_AGE", get: func(s all) any { return s.MaxAge },
			good: map[string]any{"": time.Duration(0), "90s": 90 * time.Second, "off": time.Duration(service.Off)},
			bad:  []string{"0s", "never"},
		},
		{
			setting: "JETSTREAM_STOP_AFTER", get: func(s all) any { return s.StopAfter },
			good: map[string]any{"": time.Duration(0), "90s": 90 * time.Second, "720h": 720 * time.Hour, "1h30m": 90 * time.Minute, "1ns": time.Nanosecond},
			bad:  []string{"0", "0s", "-1h", "1", "1d", "1 h", "h", "x", "9999999999h", " 1h", "off"},
		},
		{
			setting: "STREAM_REPLICAS", get: func(s all) any { return s.Replicas },
			good: map[string]any{"": 1, "1": 1, "5": 5, "3": 3},
			bad:  []string{"0", "-1", "1.0", "x", " 1", "99999999999999999999"},
		},
		{
			setting: "OPS_LISTEN", get: func(s all) any { return s.Ops.Listen },
			good: map[string]any{"": "127.0.0.1:9091", ":0": ":0", "[::1]:80": "[::1]:80", "host:65535": "host:65535"},
			bad:  []string{"host", "host:", "host:http", "host:65536", "host:-1", "::1:80", "http://host:80"},
		},
		{
			setting: "PUBLIC_URL", get: func(s all) any { return s.Feeds.PublicURL },
			good: map[string]any{"": "", "https://x": "https://x", "http://x:65535/": "http://x:65535", "https://[::1]:1/a/b/": "https://[::1]:1/a/b"},
			bad: []string{"x", "ftp://x", "https://", "https://:80", "https://x:99999", "https://x:0x1", "https://u@x", "https://x?a", "https://x#a",
				"//x", "https:/x", "https://x/%zz"},
		},
		{
			setting: "PROFILES_URL", get: func(s all) any { return s.Profiles.URL },
			good: map[string]any{"": "https://public.api.bsky.app", "off": "", "http://127.0.0.1:2584/": "http://127.0.0.1:2584"},
			bad:  []string{"0", "OFF", "public.api.bsky.app", "https://u@x", "https://x/a", "https://x?a", "https://x:/1@y"},
		},
		{
			setting: "JETSTREAM_HOSTS", get: func(s all) any { return s.Hosts },
			good: map[string]any{"a": []string{"a"}, "a,b": []string{"a", "b"}, " a , b ": []string{"a", "b"}},
			bad:  []string{",", "a,", ",a", "a,,b", " "},
		},
		{
			setting: "DATABASE_PASSWORD_FILE", get: func(s all) any { return s.Database.Password },
			good: map[string]any{"": "", write("good", " hush \n"): "hush"},
			bad:  []string{write("empty", " \n"), filepath.Join(dir, "none"), dir},
		},
		{
			setting: "NATS_CREDS_FILE", get: func(s all) any { return s.NATS.CredsFile },
			good: map[string]any{"": "", dir + "/good": dir + "/good"},
			bad:  []string{filepath.Join(dir, "none"), dir},
		},
		{
			setting: "TRACES_RATIO", get: func(s all) any { return s.Traces.Ratio },
			good: map[string]any{"": 0.001, "1": 1.0}, bad: []string{"0", "1.5", "NaN", "x", "-1"},
		},
		{setting: "LOG_FORMAT", get: func(s all) any { return s.Log.Format }, good: map[string]any{"": "text", "json": "json"}, bad: []string{"JSON", "xml", " "}},
	} {
		for raw, want := range c.good {
			s, err := read[all](service.Ingest, nil, []string{service.Prefix + c.setting + "=" + raw})
			require.NoError(t, err, "%s=%q", c.setting, raw)
			require.Equal(t, want, c.get(s), "%s=%q", c.setting, raw)
		}
		for _, raw := range c.bad {
			flag := "--" + strings.ToLower(strings.ReplaceAll(c.setting, "_", "-")) + "=" + raw
			for _, given := range [][2][]string{{nil, {service.Prefix + c.setting + "=" + raw}}, {{flag}, nil}} {
				_, err := read[all](service.Ingest, given[0], given[1])
				var bad *service.ConfigError
				require.ErrorAs(t, err, &bad, "%s=%q", c.setting, raw)
				require.Equal(t, service.Prefix+c.setting, bad.Variable)
				require.NotContains(t, err.Error(), "\n")
			}
		}
	}
}

func TestDefaultOpsPorts(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]string{
		service.Standalone: "127.0.0.1:9090", service.Ingest: "127.0.0.1:9091", service.Indexer: "127.0.0.1:9092", service.API: "127.0.0.1:9093",
	} {
		o, err := read[service.Ops](program, nil, nil)
		require.NoError(t, err)
		require.Equal(t, want, o.Listen)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range service.Settings() {
		require.False(t, seen[s.Name], s.Name)
		seen[s.Name] = true
		require.NotEmpty(t, s.PlaceHolder, s.Name)
		require.NotEmpty(t, s.Help, s.Name)
		require.False(t, strings.HasSuffix(s.Help, "."), s.Name)
		require.True(t, s.Target.Kind() == reflect.String || s.Tag.Type != "", "%s must not be parsed by kong, whose errors quote values", s.Name)
	}
	require.True(t, seen["jetstream-hosts"])
	require.True(t, seen["log-format"])
}

func TestTraces(t *testing.T) {
	t.Parallel()
	config := func(program string, environ ...string) (tracing.Config, error) {
		s, err := read[service.Traces](program, nil, environ)
		if err != nil {
			return tracing.Config{}, err
		}
		cfg, err := s.Config(program)
		require.Equal(t, service.Version(), cfg.Version)
		cfg.Version = ""
		return cfg, err
	}
	cfg, err := config(service.API)
	require.NoError(t, err)
	require.Empty(t, cfg.Endpoint, "tracing must be off by default")
	cfg, err = config(service.API, "TAGSTREAM_TRACES_URL=https://c:4318")
	require.NoError(t, err)
	require.Equal(t, tracing.Config{Endpoint: "https://c:4318/v1/traces", Ratio: 0.001, Service: "tagstream-api"}, cfg)
	cfg, err = config(service.Standalone, "TAGSTREAM_TRACES_URL=http://c/own", "TAGSTREAM_TRACES_RATIO=1")
	require.NoError(t, err)
	require.Equal(t, tracing.Config{Endpoint: "http://c/own", Ratio: 1, Service: "tagstream"}, cfg)
	for _, bad := range []string{"URL=collector:4318", "URL=grpc://c:4317", "URL=http://u:p@c", "URL=http://c/?key=u:p", "RATIO=0"} {
		_, err := config(service.Ingest, "TAGSTREAM_TRACES_"+bad)
		require.ErrorContains(t, err, "TAGSTREAM_TRACES_", bad)
		require.NotContains(t, err.Error(), "u:p")
	}
}

// The help of each verb lists exactly the settings that it uses, with their variables.
func TestHelp(t *testing.T) {
	t.Parallel()
	for args, want := range map[string][]string{
		"echo --help": {"--limit=N", "print N (default 3)", "[TAGSTREAM_NATS_URL]", "(default nats://127.0.0.1:4222)"},
		"fail --help": {"Usage: ingest fail", "--version"},
		"health -h":   {"[TAGSTREAM_OPS_LISTEN]", "(default 127.0.0.1:9091)"},
	} {
		code, help, errs := run(t, args)
		require.Zero(t, code, errs)
		for _, s := range want {
			require.Contains(t, strings.Join(strings.Fields(help), " "), s)
		}
		for _, s := range service.Settings() {
			reads := strings.Contains(fmt.Sprint(want), "["+service.Variable(s.Name)+"]") || strings.HasPrefix(s.Name, "nats-") && strings.HasPrefix(args, "echo")
			require.Equal(t, reads, strings.Contains(help, service.Variable(s.Name)), "%s of %s", s.Name, args)
		}
		for _, line := range strings.Split(help, "\n") {
			require.Equal(t, strings.TrimRight(line, " "), line)
			if !strings.Contains(line, "://") { // except for what cannot be wrapped
				require.LessOrEqual(t, len(line), 100, line)
			}
		}
	}
}

// The all-in-one program shows no default for servers that it runs itself.
func TestHelpWithEmbeddedServers(t *testing.T) {
	t.Parallel()
	for program, shown := range map[string]string{service.Ingest: "nats://127.0.0.1:4222", service.Indexer: "nats://127.0.0.1:4222", service.Standalone: ""} {
		n, err := read[service.NATS](program, nil, nil)
		require.NoError(t, err)
		require.Equal(t, shown, n.URL)
	}
}
