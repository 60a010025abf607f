package e2e_test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// deployed is a NATS server and a Postgres server as deploy/ runs them in containers: with its
// configuration, adapted to local paths, and with secrets made by its own command.
type deployed struct {
	t *testing.T
	// dir stands for a container's root.
	dir     string
	server  *natstest.TestServer
	natsURL string
	options *server.Options // as parsed
	// pgAddr is host:port; the logs of Postgres are next to dataDir.
	pgAddr, dataDir string
}

const deployDir = "../../deploy/"

func newDeployed(t *testing.T) *deployed {
	t.Helper()
	d := &deployed{t: t, dir: t.TempDir()}
	makeSecrets(t, d.path("/run/secrets"))
	d.startNATS()
	d.startPostgres()
	return d
}

// makeSecrets writes the secrets that deploy/secrets makes.
func makeSecrets(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", "./deploy/secrets", "--out", dir, "--program-user=-1")
	cmd.Dir = deployDir + ".."
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// path returns the local path for a path in a container.
func (d *deployed) path(inside string) string { return filepath.Join(d.dir, inside) }

// copy copies a file of deploy/ to its place in a container, with some words replaced.
func (d *deployed) copy(from, to string, replace ...string) {
	d.t.Helper()
	text, err := os.ReadFile(deployDir + from)
	require.NoError(d.t, err)
	for i := 0; i < len(replace); i += 2 {
		require.Contains(d.t, string(text), replace[i], from)
	}
	require.NoError(d.t, os.MkdirAll(filepath.Dir(to), 0o755))
	require.NoError(d.t, os.WriteFile(to, []byte(strings.NewReplacer(replace...).Replace(string(text))), 0o644))
}

func (d *deployed) secret(name string) string {
	d.t.Helper()
	text, err := os.ReadFile(d.path("/run/secrets/" + name))
	require.NoError(d.t, err)
	return strings.TrimSpace(string(text))
}

func (d *deployed) startNATS() {
	d.t.Helper()
	secrets := []string{`"/run/secrets/`, `"` + d.path("/run/secrets") + "/"}
	d.copy("nats/users.conf", d.path("/etc/tagstream/users.conf"), "$NATS_ACCOUNT_FILE_STORE", "1GB")
	d.copy("nats/server.conf", d.path("/etc/tagstream/server.conf"), append(secrets, "$NATS_NAME", "test", "port: 4222", "port: -1", "http_port: 8222", "")...)
	for _, name := range []string{"cluster", "single"} {
		replace := []string{`"/data/`, `"` + d.path("/data") + "/", "$NATS_MAX_FILE_STORE", "-1"}
		if name == "cluster" {
			replace = append(replace, secrets...)
		}
		file := d.path("/etc/tagstream/" + name + ".conf")
		d.copy("nats/"+name+".conf", file, replace...)
		var err error
		d.options, err = server.ProcessConfigFile(file)
		require.NoError(d.t, err, "deploy/nats/%s.conf", name)
	}
	d.server = natstest.Server(d.t, natstest.With(func(o *server.Options) {
		*o = *d.options
		o.Host, o.NoSigs, o.LogFile = "127.0.0.1", true, d.path("/nats.log")
	}))
	d.natsURL = strings.Replace(d.server.URL(), "nats:", "tls:", 1)
}

// nats connects to NATS as a user.
func (d *deployed) nats(user string, options ...nats.Option) *nats.Conn {
	d.t.Helper()
	key, err := nats.NkeyOptionFromSeed(d.path("/run/secrets/nats_" + user + ".nk"))
	require.NoError(d.t, err)
	nc, err := nats.Connect(d.natsURL, append(options, key, nats.RootCAs(d.path("/run/secrets/ca.crt")), nats.CustomInboxPrefix("_INBOX_"+user))...)
	require.NoError(d.t, err)
	d.t.Cleanup(nc.Close)
	return nc
}

// permissions returns the permissions of a NATS user in the configuration.
func (d *deployed) permissions(user string) *server.Permissions {
	d.t.Helper()
	pair, err := nkeys.FromSeed([]byte(d.secret("nats_" + user + ".nk")))
	require.NoError(d.t, err)
	key, err := pair.PublicKey()
	require.NoError(d.t, err)
	for _, u := range d.options.Nkeys {
		if u.Nkey == key {
			return u.Permissions
		}
	}
	d.t.Fatalf("users.conf has no user %s", user)
	return nil
}

// startPostgres creates the roles like deploy/postgres/entrypoint, and restarts the server with the
// rest of the configuration.
func (d *deployed) startPostgres() {
	d.t.Helper()
	s := pgtest.Server(d.t)
	super := s.Pool(d.t)
	var bin string
	require.NoError(d.t, super.QueryRow(d.t.Context(), "SELECT setting FROM pg_config WHERE name = 'BINDIR'").Scan(&bin))
	require.NoError(d.t, super.QueryRow(d.t.Context(), "SHOW tagstream.dir").Scan(&d.dataDir))
	psql := filepath.Join(bin, "psql")
	if _, err := os.Stat(psql); err != nil {
		if os.Getenv("CI") == "true" {
			d.t.Fatal(err)
		}
		d.t.Skipf("SKIPPED: roles.sql needs psql, which this Postgres lacks: %v", err)
	}
	d.copy("postgres/roles.sql", d.path("/roles.sql"), " /run/secrets/", " "+d.path("/run/secrets")+"/")
	for range 2 { // it is documented as repeatable
		out, err := exec.CommandContext(d.t.Context(), psql, "--no-psqlrc", "--file", d.path("/roles.sql"), s.URL).CombinedOutput()
		require.NoError(d.t, err, "%s", out)
	}

	// In the data directory, since Postgres may run under another account.
	d.copy("postgres/pg_hba.conf", filepath.Join(d.dataDir, "pg_hba.conf"), " peer", " scram-sha-256")
	d.copy("postgres/postgresql.conf", filepath.Join(d.dataDir, "deployed.conf"), "'/run/secrets/", "'")
	for _, name := range []string{"postgres.crt", "postgres.key", "ca.crt"} {
		require.NoError(d.t, os.WriteFile(filepath.Join(d.dataDir, name), []byte(d.secret(name)+"\n"), 0o600))
	}
	d.give("postgres.crt", "postgres.key", "ca.crt")
	conf, err := os.OpenFile(filepath.Join(d.dataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(d.t, err)
	_, err = conf.WriteString("\ninclude 'deployed.conf'\n")
	require.NoError(d.t, err)
	require.NoError(d.t, conf.Close())
	super.Close()
	s.Restart(d.t)
	u, err := url.Parse(s.URL)
	require.NoError(d.t, err)
	d.pgAddr = u.Host
}

// give makes the account that runs Postgres the owner of files in the data directory.
func (d *deployed) give(names ...string) {
	d.t.Helper()
	info, err := os.Stat(d.dataDir)
	require.NoError(d.t, err)
	owner := info.Sys().(*syscall.Stat_t)
	for _, name := range names {
		require.NoError(d.t, os.Chown(filepath.Join(d.dataDir, name), int(owner.Uid), int(owner.Gid)))
	}
}

// database returns the URL for a role, as in docker-compose.yml.
func (d *deployed) database(role string) string {
	return fmt.Sprintf("postgres://tagstream_%s@%s/tagstream?sslmode=verify-full&sslrootcert=%s", role, d.pgAddr, d.path("/run/secrets/ca.crt"))
}

// env returns the environment of a program that uses NATS as one user and Postgres as one role, as
// in docker-compose.yml.
func (d *deployed) env(user, role string, more ...string) []string {
	env := more
	if user != "" {
		env = append(env, "TAGSTREAM_NATS_URL="+d.natsURL, "TAGSTREAM_NATS_CA_FILE="+d.path("/run/secrets/ca.crt"),
			"TAGSTREAM_NATS_NKEY_FILE="+d.path("/run/secrets/nats_"+user+".nk"))
	}
	if role != "" {
		env = append(env, "TAGSTREAM_DATABASE_URL="+d.database(role), "TAGSTREAM_DATABASE_PASSWORD_FILE="+d.path("/run/secrets/postgres_"+role+".password"))
	}
	return env
}

// requireNoRefusal fails if a server has refused anything.
func (d *deployed) requireNoRefusal() {
	d.t.Helper()
	for file, word := range map[string]string{d.path("/nats.log"): "iolation", filepath.Join(d.dataDir, "../postgres.log"): "permission denied"} {
		text, err := os.ReadFile(file)
		require.NoError(d.t, err)
		require.NotEmpty(d.t, text, file)
		for line := range strings.Lines(string(text)) {
			require.NotContains(d.t, line, word, "%s", file)
		}
	}
}

// uses records which configured rights the NATS users use, with the inboxes that receive answers.
type uses struct {
	conn *nats.Conn
	mu   sync.Mutex
	used map[string]map[string]bool // by user and right
}

// watch starts recording.
func (d *deployed) watch(users ...string) *uses {
	d.t.Helper()
	u := &uses{used: map[string]map[string]bool{}}
	for _, user := range users {
		u.used[user] = map[string]bool{}
		for _, right := range d.permissions(user).Publish.Allow {
			u.used[user][right] = false
		}
	}
	// When the server restarts, it reconnects before the programs.
	u.conn = d.nats("operator", nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0))
	_, err := u.conn.Subscribe(">", func(m *nats.Msg) {
		u.mu.Lock()
		defer u.mu.Unlock()
		for user, rights := range u.used {
			if !strings.HasPrefix(m.Reply, "_INBOX_"+user+".") {
				continue
			}
			for right := range rights {
				if server.SubjectMatchesFilter(m.Subject, right) {
					rights[right] = true
				}
			}
		}
	})
	require.NoError(d.t, err)
	require.NoError(d.t, u.conn.Flush())
	return u
}

// await returns once recording works again.
func (u *uses) await(t *testing.T) {
	t.Helper()
	poll.Until(t, ingestWait, func() (bool, string) {
		err := u.conn.FlushTimeout(time.Second)
		return err == nil, fmt.Sprint(err)
	})
}

// rarelyUsed are rights that a quiet run does not need.
var rarelyUsed = map[string]string{
	"ingest $JS.API.STREAM.UPDATE.POSTS_DLQ":               "more copies are made of it in a cluster",
	"ingest $JS.API.STREAM.UPDATE.INGEST_LOG":              "the same",
	"ingest $JS.API.STREAM.UPDATE.KV_TAGSTREAM_LEASES":     "the same",
	"ingest $JS.API.STREAM.UPDATE.KV_TAGSTREAM_POSITIONS":  "the same",
	"ingest $JS.API.STREAM.MSG.GET.KV_TAGSTREAM_POSITIONS": "it is read where the stream was emptied",
	"ingest $JS.FC.KV_TAGSTREAM_LEASES.>":                  "messages there request no answer, so their user is unknown",
	"ingest $JS.API.CONSUMER.INFO.POSTS.*":                 "a reconcile that loses its connection asks",
	"indexer $JS.API.CONSUMER.INFO.POSTS.*":                "so does the indexer, if it is not faster to make another consumer",
}

// unused returns rights that should have been used but were not.
func (u *uses) unused() (rights []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for user, all := range u.used {
		for right, used := range all {
			if !used && rarelyUsed[user+" "+right] == "" {
				rights = append(rights, user+" "+right)
			}
		}
	}
	return rights
}
