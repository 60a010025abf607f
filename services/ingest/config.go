package ingest

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
	"github.com/tagstream/tagstream/services/ingest/internal/profiles"
)

// DefaultReport is how often the log reports what was read and published.
const DefaultReport = time.Minute

// Config is an operator's configuration of ingest.
type Config struct {
	// Hosts are base URLs of Jetstream v2 hosts, the preferred one first. A bare host name means
	// https, or http on the loopback.
	Hosts []string
	// Start says where to begin if the stream has no position yet: "tip" (also ""), "archive", an
	// RFC 3339 time, a date, or an age such as "-2h".
	Start string
	// StopAfter ends Run after this much upstream time; 0 means never.
	StopAfter time.Duration
	// APIKeyFile holds the key for archive downloads; "" means none is needed.
	APIKeyFile string
	// Stream has the settings of the streams on the NATS server. Its zero value creates a stream
	// that is not trimmed, and changes no existing setting.
	Stream stream.Config

	// ProfilesURL is the base URL of the AppView for author look-ups; "" disables them.
	ProfilesURL string

	// Heartbeat is how long after the last message a position message is published; 0 means
	// forward.DefaultHeartbeat, 10 s.
	Heartbeat time.Duration
	// Report is how often progress is logged; 0 means DefaultReport.
	Report time.Duration
	// Timing has the time limits for hosts, for tests; its zero value means the defaults.
	Timing firehose.Timing
	// ProfilesTiming has the time limits for the AppView, likewise.
	ProfilesTiming profiles.Timing
}

// Smaller values are probably typing errors, and trimmed messages are lost.
const (
	minMaxBytes = 10_000_000
	minMaxAge   = time.Hour
)

// ConfigFrom builds the configuration from a program's settings. The error is a
// *service.ConfigError.
func ConfigFrom(j service.Jetstream, w service.Window, r service.Retention) (Config, error) {
	cfg := Config{
		Hosts: j.Hosts, APIKeyFile: j.APIKeyFile, Start: w.Start, StopAfter: w.StopAfter,
		Stream: stream.Config{MaxBytes: r.MaxBytes, MaxAge: r.MaxAge}, // service.Off is stream's unbounded
	}
	if n := r.MaxBytes; n > 0 && n < minMaxBytes {
		return cfg, service.Bad("STREAM_MAX_BYTES", fmt.Errorf("%d bytes are less than 10MB, which would remove nearly all of the stream at once", n))
	}
	if d := r.MaxAge; d > 0 && d < minMaxAge {
		return cfg, service.Bad("STREAM_MAX_AGE", fmt.Errorf("%s is less than %s, which would remove nearly all of the stream at once", d, minMaxAge))
	}
	return cfg, cfg.Validate()
}

func (c Config) withDefaults() Config {
	if c.Heartbeat == 0 {
		c.Heartbeat = forward.DefaultHeartbeat
	}
	if c.Report == 0 {
		c.Report = DefaultReport
	}
	return c
}

// Validate checks the configuration. The error is a *service.ConfigError that
// names the variable.
func (c Config) Validate() error {
	_, err := c.resolve(time.Now())
	return err
}

// resolve checks the configuration and returns that of the firehose.
func (c Config) resolve(now time.Time) (firehose.Config, error) {
	out := firehose.Config{StopAfter: c.StopAfter, Timing: c.Timing}
	bad := func(name string, err error) (firehose.Config, error) {
		return firehose.Config{}, &service.ConfigError{Variable: service.Prefix + name, Err: err}
	}
	if len(c.Hosts) == 0 {
		return bad("JETSTREAM_HOSTS", errors.New("must name at least one host"))
	}
	var err error
	if out.Hosts, err = baseURLs(c.Hosts); err != nil {
		return bad("JETSTREAM_HOSTS", err)
	}
	start, err := firehose.ParseStart(c.Start, now)
	if err != nil {
		return bad("JETSTREAM_START", err)
	}
	out.Start = start
	if c.StopAfter < 0 {
		return bad("JETSTREAM_STOP_AFTER", errors.New("must not be negative"))
	}
	if c.APIKeyFile != "" {
		data, err := os.ReadFile(c.APIKeyFile)
		if err != nil {
			return bad("JETSTREAM_API_KEY_FILE", err)
		}
		if out.APIKey = strings.TrimSpace(string(data)); out.APIKey == "" {
			return bad("JETSTREAM_API_KEY_FILE", fmt.Errorf("%s is empty", c.APIKeyFile))
		}
	}
	return out, nil
}

// baseURLs returns hosts in the form that positions use: only scheme and host. The error quotes
// nothing that may be a password.
func baseURLs(hosts []string) (bases []string, err error) {
	for i, h := range hosts {
		base, fault := baseURL(h)
		if fault != "" {
			shown := strconv.Quote(h)
			// A comma in a password may have split it.
			if strings.Contains(strings.Join(hosts, ","), "@") {
				shown = fmt.Sprintf("entry %d", i+1)
			}
			return nil, errors.New(shown + " " + fault)
		}
		if slices.Contains(bases, base) {
			return nil, fmt.Errorf("names %s twice", base)
		}
		bases = append(bases, base)
	}
	return bases, nil
}

func baseURL(s string) (base, fault string) {
	raw := s
	if !strings.Contains(raw, "://") {
		scheme := "https://"
		if name, _, _ := strings.Cut(raw, ":"); name == "localhost" || strings.HasPrefix(name, "127.") {
			scheme = "http://"
		}
		raw = scheme + raw
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		return "", "is not a host's base URL such as https://jetstream.us-east.bsky.network"
	case u.User != nil, u.RawQuery != "", u.Fragment != "", strings.Trim(u.Path, "/") != "":
		return "", "has more than scheme, host and port"
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), ""
}
