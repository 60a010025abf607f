package ingest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
)

var testNow = time.Date(2026, 8, 31, 12, 0, 0, 0, time.UTC)

func TestConfigResolves(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte(" secret\n"), 0o600))
	got, err := Config{
		Hosts:      []string{"https://Jetstream.us-east.bsky.network/", "jetstream.us-west.bsky.network", "127.0.0.1:6008", "localhost:1", "http://[::1]:80"},
		Start:      "-2h",
		StopAfter:  time.Minute,
		APIKeyFile: key,
	}.resolve(testNow)
	require.NoError(t, err)
	require.Equal(t, firehose.Config{
		Hosts: []string{"https://jetstream.us-east.bsky.network", "https://jetstream.us-west.bsky.network",
			"http://127.0.0.1:6008", "http://localhost:1", "http://[::1]:80"},
		Start:     firehose.Start{Time: testNow.Add(-2 * time.Hour)},
		StopAfter: time.Minute,
		APIKey:    "secret",
	}, got)
}

func TestConfigErrorsNameSettings(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	hosts := []string{"a.example"}
	for name, tt := range map[string]struct {
		cfg      Config
		variable string
	}{
		"no hosts":           {Config{}, "TAGSTREAM_JETSTREAM_HOSTS"},
		"a host of nothing":  {Config{Hosts: []string{""}}, "TAGSTREAM_JETSTREAM_HOSTS"},
		"a websocket":        {Config{Hosts: []string{"wss://a.example"}}, "TAGSTREAM_JETSTREAM_HOSTS"},
		"a path":             {Config{Hosts: []string{"https://a.example/subscribe"}}, "TAGSTREAM_JETSTREAM_HOSTS"},
		"a password":         {Config{Hosts: []string{"https://u:p@a.example"}}, "TAGSTREAM_JETSTREAM_HOSTS"},
		"a host twice":       {Config{Hosts: []string{"a.example", "https://A.example/"}}, "TAGSTREAM_JETSTREAM_HOSTS"},
		"a bad start":        {Config{Hosts: hosts, Start: "soon"}, "TAGSTREAM_JETSTREAM_START"},
		"the future":         {Config{Hosts: hosts, Start: "2026-09-01"}, "TAGSTREAM_JETSTREAM_START"},
		"a negative time":    {Config{Hosts: hosts, StopAfter: -1}, "TAGSTREAM_JETSTREAM_STOP_AFTER"},
		"no such key file":   {Config{Hosts: hosts, APIKeyFile: empty + "x"}, "TAGSTREAM_JETSTREAM_API_KEY_FILE"},
		"an empty key file":  {Config{Hosts: hosts, APIKeyFile: empty}, "TAGSTREAM_JETSTREAM_API_KEY_FILE"},
		"not a URL, at all:": {Config{Hosts: []string{"http://%zz"}}, "TAGSTREAM_JETSTREAM_HOSTS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tt.cfg.resolve(testNow)
			var bad *service.ConfigError
			require.True(t, errors.As(err, &bad), "%v", err)
			require.Equal(t, tt.variable, bad.Variable)
		})
	}
}

func TestConfigFromSettings(t *testing.T) {
	t.Parallel()
	parse := func(args, environ []string) (Config, error) {
		var s struct {
			service.Jetstream
			service.Window
			service.Retention
		}
		require.NoError(t, service.Parse(service.Ingest, &s, args, environ))
		return ConfigFrom(s.Jetstream, s.Window, s.Retention)
	}
	cfg, err := parse([]string{"--jetstream-start", "archive"}, []string{
		"TAGSTREAM_JETSTREAM_HOSTS=a.example, b.example", "TAGSTREAM_JETSTREAM_STOP_AFTER=30s",
		"TAGSTREAM_STREAM_MAX_BYTES=1GiB", "TAGSTREAM_STREAM_MAX_AGE=720h",
	})
	require.NoError(t, err)
	require.Equal(t, Config{
		Hosts: []string{"a.example", "b.example"}, Start: "archive", StopAfter: 30 * time.Second,
		Stream: stream.Config{MaxBytes: 1 << 30, MaxAge: 720 * time.Hour},
	}, cfg)

	cfg, err = parse(nil, []string{"TAGSTREAM_STREAM_MAX_BYTES=off", "TAGSTREAM_STREAM_MAX_AGE=0"})
	require.NoError(t, err)
	require.Equal(t, stream.Config{MaxBytes: service.Off, MaxAge: service.Off}, cfg.Stream)
	cfg, err = parse(nil, nil)
	require.NoError(t, err, "the defaults must be valid")
	require.Equal(t, stream.Config{}, cfg.Stream)
}

func TestBackfillConfigResolves(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 8, 31, 12, 0, 0, 0, time.UTC)
	hosts := Config{Hosts: []string{"a.example"}, Start: "archive", StopAfter: time.Hour}
	for name, tt := range map[string]struct {
		cfg         BackfillConfig
		from, until time.Time
		bad         string
	}{
		"a day":               {cfg: BackfillConfig{Ingest: hosts, From: "2026-08-01", For: "1d"}, from: now.AddDate(0, 0, -30).Add(-12 * time.Hour), until: now.AddDate(0, 0, -29).Add(-12 * time.Hour)},
		"an age":              {cfg: BackfillConfig{Ingest: hosts, From: "-3h", For: "90m"}, from: now.Add(-3 * time.Hour), until: now.Add(-90 * time.Minute)},
		"up to now":           {cfg: BackfillConfig{Ingest: hosts, From: "-3h", For: "2d"}, from: now.Add(-3 * time.Hour), until: now},
		"no beginning":        {cfg: BackfillConfig{Ingest: hosts, For: "1h"}, bad: "--from"},
		"the tip":             {cfg: BackfillConfig{Ingest: hosts, From: "tip", For: "1h"}, bad: "--from"},
		"the archive":         {cfg: BackfillConfig{Ingest: hosts, From: "archive", For: "1h"}, bad: "--from"},
		"in the future":       {cfg: BackfillConfig{Ingest: hosts, From: "2027-01-01", For: "1h"}, bad: "--from"},
		"no length":           {cfg: BackfillConfig{Ingest: hosts, From: "-3h"}, bad: "--for"},
		"a negative length":   {cfg: BackfillConfig{Ingest: hosts, From: "-3h", For: "-1h"}, bad: "--for"},
		"a length of nothing": {cfg: BackfillConfig{Ingest: hosts, From: "-3h", For: "0s"}, bad: "--for"},
		"no hosts":            {cfg: BackfillConfig{From: "-3h", For: "1h"}, bad: "TAGSTREAM_JETSTREAM_HOSTS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.cfg.request(now)
			if tt.bad != "" {
				var bad *service.ConfigError
				require.ErrorAs(t, err, &bad)
				require.Equal(t, tt.bad, bad.Variable)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.from, got.From)
			require.Equal(t, tt.until, got.Until)
			require.Equal(t, []string{"https://a.example"}, got.Hosts)
		})
	}
}
