package pg

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPoolSize(t *testing.T) {
	t.Parallel()
	const base = "postgres://u@127.0.0.1/x"
	for _, c := range []struct {
		name string
		o    Options
		want int32
	}{
		{"default", Options{URL: base}, 4},
		{"program's default", Options{URL: base, DefaultConns: 8}, 8},
		{"URL", Options{URL: base + "?pool_max_conns=3", DefaultConns: 8}, 3},
		{"setting", Options{URL: base + "?pool_max_conns=3", DefaultConns: 8, MaxConns: 7}, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, _, err := where(c.o)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

// TestWrongURLs: an error says what is wrong with a URL, even if the URL has a password.
func TestWrongURLs(t *testing.T) {
	t.Parallel()
	for url, says := range map[string]string{
		"postgres://u@h/db?password=S3CR3T&sslmode=bogus":     "sslmode is invalid",
		"postgres://u:S3CR3T@h/db?sslpassword=S3CR3T&port=no": "port",
		"host=h user=u password=S3CR3T sslmode=bogus":         "has a value of sslmode that Postgres does not know",
		"host=h password='S3CR 3T' port=no":                   "has a value of port that Postgres does not know",
		"mysql://u:S3CR3T@h/db?password=S3CR3T":               "begins with another scheme",
		"mysql://u:S3CR3T@h/db":                               "begins with another scheme",
		"host=h password=S3CR3T dbname":                       "is not a URL such as",
	} {
		t.Run(says, func(t *testing.T) {
			err := Options{URL: url}.Check()
			require.ErrorContains(t, err, says)
			require.NotContains(t, err.Error(), "S3CR")
		})
	}
}

// FuzzURL makes URLs with malformed user-info. No part of it may appear in an error, or in the
// parsed form of an accepted URL, which later errors quote.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"u:p", "u:p#", "u:@", "u:/1", "u:1?", "u:1/", "u:%", "u:%zz", ":[", "u:,", "u: ", "u:1,@", "u:\x00", "u:'", "u@u:p", "://", "u:p@h?password=", "u:\n"} {
		f.Add(s, "host:5432/db?sslmode=bogus")
		f.Add(s, "host/db")
		f.Add(s, "a,b:1:2/db")
	}
	const secret = "S3CR3T"
	f.Fuzz(func(t *testing.T, broken, rest string) {
		if strings.Contains(rest, secret) || strings.Contains(rest, "@") {
			return
		}
		for _, info := range []string{broken + secret, secret + broken, secret + broken + secret} {
			for _, scheme := range []string{"postgres://", "postgresql://", "Postgres://", ""} {
				_, hosts, names, err := where(Options{URL: scheme + info + "@" + rest})
				if err != nil {
					require.NotContains(t, err.Error(), secret)
					continue
				}
				if scheme != "" && strings.HasPrefix(scheme, "p") {
					require.NotContains(t, strings.Join(append(hosts, names...), " "), secret, "%s%s@%s", scheme, info, rest)
				}
			}
		}
	})
}

// where returns the parsed form of an accepted URL.
func where(o Options) (maxConns int32, hosts, names []string, err error) {
	t, err := o.Target(Reading)
	if err != nil {
		return 0, nil, nil, err
	}
	c := t.Config.ConnConfig
	hosts = []string{c.Host}
	for _, f := range c.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	return t.Config.MaxConns, hosts, append(slices.Collect(maps.Keys(c.RuntimeParams)), c.Database), nil
}
