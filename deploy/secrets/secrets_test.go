package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// asSelf leaves the files with the user that runs the test.
func asSelf(t *testing.T) options {
	return options{dir: filepath.Join(t.TempDir(), "secrets"), programUser: -1, postgresUser: -1, grafanaUser: -1}
}

func read(t *testing.T, o options, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(o.dir, name))
	require.NoError(t, err)
	return text
}

func TestAllIsMadeOnce(t *testing.T) {
	t.Parallel()
	o := asSelf(t)
	made, err := run(o)
	require.NoError(t, err)
	entries, err := os.ReadDir(o.dir)
	require.NoError(t, err)
	require.Len(t, entries, len(made), "and nothing else is left behind")
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		if open := e.Name() == "nats_users.conf" || strings.HasSuffix(e.Name(), ".crt"); !open {
			require.Zero(t, info.Mode().Perm()&0o007, "%s is open to all", e.Name())
		}
		require.Zero(t, info.Mode().Perm()&0o222, "%s can be written to", e.Name())
	}
	folder, err := os.Stat(o.dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), folder.Mode().Perm())

	before := read(t, o, "nats_ingest.nk")
	made, err = run(o)
	require.NoError(t, err)
	require.Empty(t, made)
	require.Equal(t, before, read(t, o, "nats_ingest.nk"))
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	o := asSelf(t)
	_, err := run(o)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(read(t, o, "ca.crt")))
	for _, c := range []struct {
		name, host string
		use        x509.ExtKeyUsage
		good       bool
	}{
		{"nats", "nats", x509.ExtKeyUsageServerAuth, true},
		{"nats", "nats-3", x509.ExtKeyUsageServerAuth, true},
		{"nats", "nats-2.nats-headless", x509.ExtKeyUsageServerAuth, true},
		{"nats", "nats", x509.ExtKeyUsageClientAuth, true},
		{"nats", "postgres", x509.ExtKeyUsageServerAuth, false},
		{"postgres", "postgres-standby", x509.ExtKeyUsageServerAuth, true},
		// Or it could join the cluster of NATS servers.
		{"postgres", "postgres", x509.ExtKeyUsageClientAuth, false},
	} {
		pair, err := tls.X509KeyPair(read(t, o, c.name+".crt"), read(t, o, c.name+".key"))
		require.NoError(t, err)
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: c.host, KeyUsages: []x509.ExtKeyUsage{c.use}})
		require.Equal(t, c.good, err == nil, "%s as %s for %v: %v", c.name, c.host, c.use, err)
	}
}

func TestReplacingOne(t *testing.T) {
	t.Parallel()
	o := asSelf(t)
	_, err := run(o)
	require.NoError(t, err)
	for _, name := range []string{"nats.crt", "nats.key", "postgres_api.password"} {
		require.NoError(t, os.Remove(filepath.Join(o.dir, name)))
	}
	made, err := run(o)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"nats.crt", "nats.key", "postgres_api.password"}, made)

	require.NoError(t, os.Remove(filepath.Join(o.dir, "nats_indexer.nk")))
	made, err = run(o)
	require.ErrorContains(t, err, "only some of nats_users.conf, nats_ingest.nk, nats_indexer.nk, nats_operator.nk are there")
	require.Empty(t, made)
}

func TestKeysFit(t *testing.T) {
	t.Parallel()
	o := asSelf(t)
	_, err := run(o)
	require.NoError(t, err)
	public := string(read(t, o, "nats_users.conf"))
	for _, user := range natsUsers {
		pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(string(read(t, o, "nats_"+user+".nk")))))
		require.NoError(t, err)
		key, err := pair.PublicKey()
		require.NoError(t, err)
		require.Contains(t, public, strings.ToUpper(user)+`_KEY: "`+key+`"`)
	}
	seen := map[string]bool{}
	for _, role := range roles {
		password := string(read(t, o, "postgres_"+role+".password"))
		secret, err := base64.RawURLEncoding.DecodeString(password)
		require.NoError(t, err)
		require.Len(t, secret, secretBytes)
		require.False(t, seen[password])
		seen[password] = true
	}
}
