package standalone_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/standalone"
	"github.com/tagstream/tagstream/services/standalone/cmd"
)

// FuzzSecrets gives every setting that is a URL, and the command line, a URL with
// broken user-info. Nothing of it may be printed.
//
// Invariant: the user-info of a URL is never printed, however broken the URL is. See also
// FuzzURL.
func FuzzSecrets(f *testing.F) {
	for _, s := range []string{"u:p", "u:p#", "u:@", "u:/1", "u:1?", "u:%zz", ":[", "u:,", "u: ", "u:1,@", "u:'", "u@u:p", "://", "u:\n", "=", "-", "1", "12#1", ""} {
		f.Add(s, "host.example:1/x")
		f.Add(s, "[::1")
	}
	const secret = "S3CR3T"
	f.Fuzz(func(t *testing.T, broken, rest string) {
		if strings.Contains(broken+rest, "\x00") || strings.Contains(rest, "@") || strings.Contains(rest, secret) {
			return
		}
		silent := func(what string) {
			require.NotContains(t, what, secret)
		}
		for setting, schemes := range map[string][]string{
			"DATABASE_URL":    {"postgres://", "postgresql://", ""},
			"NATS_URL":        {"nats://", "tls://", "ws://", ""},
			"JETSTREAM_HOSTS": {"https://", "http://", ""},
			"TRACES_URL":      {"http://", "https://", ""},
			"PROFILES_URL":    {"http://", "https://", ""},
		} {
			for _, scheme := range schemes {
				for _, info := range []string{secret + broken, broken + secret} {
					raw := scheme + info + "@" + rest
					var s standalone.Settings
					err := service.Parse(service.Standalone, &s, nil, []string{service.Prefix + setting + "=" + raw})
					if err == nil {
						_, err = s.Config("data")
					}
					if err == nil && setting == "NATS_URL" {
						_, err = s.NATS.Servers(&service.Process{})
					}
					if err != nil {
						silent(err.Error())
					}
					if setting != "DATABASE_URL" && setting != "NATS_URL" {
						require.Error(t, err, "one with user-info is refused")
					}
					for _, args := range [][]string{{raw}, {"--" + raw}, {"-" + raw}, {"---" + raw}, {"--no-such-flag=" + raw}, {"run", raw}} {
						var out, errs bytes.Buffer
						if strings.HasPrefix(strings.TrimLeft(args[0], "-"), "h") || strings.Contains(raw, "version") || scheme == "" {
							continue // help, or no URL
						}
						require.NotZero(t, cmd.Program().Run(t.Context(), args, nil, &out, &errs))
						silent(out.String() + errs.String())
					}
				}
			}
		}
	})
}
