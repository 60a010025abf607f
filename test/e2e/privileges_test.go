package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

// In TestPrivileges the programs do everything that they can do, over TLS, as the users and roles
// of deploy/. No server refuses anything, and every right that NATS grants is used.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	_, err := programs() // before the test's time limit starts
	require.NoError(t, err)
	d := newDeployed(t)
	b := newIngestBench(t, 30)
	nc := d.nats("operator")
	b.js, err = jetstream.New(nc)
	require.NoError(t, err)
	rights := d.watch("ingest", "indexer")
	// Only posts: an archive has no record of accounts that were hidden before.
	require.NoError(t, simnet.Traffic{Count: 200, Seed: 5, TagsOnly: true}.Run(b.ctx, b.net))
	host := b.host()

	once := func(code int, program, command string, env []string) string {
		t.Helper()
		p := begin(t, program, strings.Fields(command), env...)
		require.Equal(t, code, p.exit(), "%s %s: %s", program, command, p.Output())
		return p.Output()
	}
	var running []*program
	run := func(program string, env []string) (ops string) {
		t.Helper()
		ops = freeAddr(t)
		running = append(running, begin(t, program, nil, append(env, "TAGSTREAM_OPS_LISTEN="+ops)...))
		return ops
	}
	stop := func() {
		t.Helper()
		for _, p := range running {
			require.Zero(t, p.end(syscall.SIGTERM), p.Output())
			require.NotContains(t, strings.ToLower(p.Output()), "permission")
		}
		running = nil
	}
	ingestEnv := d.env("ingest", "", "TAGSTREAM_JETSTREAM_HOSTS="+host.URL(), "TAGSTREAM_JETSTREAM_START=archive")
	indexerEnv := d.env("indexer", "indexer")

	once(0, "indexer", "migrate", d.env("", "owner"))
	keys := filepath.Join(t.TempDir(), "cursor.keys")
	once(0, "api", "keys --out "+keys, nil)
	apiAddr := freeAddr(t)
	apiOps := run("api", d.env("", "api", "TAGSTREAM_API_LISTEN="+apiAddr, "TAGSTREAM_CURSOR_KEYS_FILE="+keys))
	url, api := "http://"+apiAddr, running
	running = nil
	ingestOps := run("ingest", ingestEnv)
	awaitAnswer(t, "http://"+ingestOps+"/readyz")
	first := running
	running = nil
	indexerOps := run("indexer", indexerEnv)
	run("indexer", indexerEnv)
	b.settle(host, url)
	standbyOps := run("ingest", append(slices.Clone(ingestEnv), "TAGSTREAM_STREAM_MAX_AGE=8760h"))
	poll.Until(t, ingestWait, func() (bool, string) {
		status, body := process.Fetch("http://" + standbyOps + "/readyz")
		return status != 0 && strings.Contains(body, "held by"), body
	})
	require.Zero(t, first[0].end(syscall.SIGTERM), first[0].Output())
	awaitAnswer(t, "http://"+standbyOps+"/readyz")
	require.NoError(t, simnet.Traffic{Count: 400, Seed: 6}.Run(b.ctx, b.net))
	b.settle(host, url)
	d.server.Restart(t) // the programs reconnect
	rights.await(t)
	b.settle(host, url)
	for program, ops := range map[string]string{"ingest": standbyOps, "indexer": indexerOps, "api": apiOps} {
		awaitAnswer(t, "http://"+ops+"/readyz") // a standby also notices that NATS is back
		once(0, program, "health", []string{"TAGSTREAM_OPS_LISTEN=" + ops})
	}
	require.Contains(t, once(0, "ingest", "log", ingestEnv), `"what":"connected"`)

	// Jobs in the running ingest.
	logger := slog.New(slog.NewTextHandler(testWriter{t, "job: "}, nil))
	deps := ingest.JobDeps{NATS: d.nats("ingest"), Progress: progress{logger}, Patience: ingestWait}
	settings := ingest.Config{Hosts: []string{host.URL()}}
	ingestPatience(&settings)
	filled, err := ingest.RunBackfill(b.ctx, ingest.BackfillConfig{Ingest: settings, From: "-1h", For: "59m59s"}, deps)
	require.NoError(t, err)
	t.Logf("%+v", filled)
	_, err = ingest.RunReconcile(b.ctx, ingest.ReconcileConfig{Ingest: settings, Margin: time.Microsecond}, deps)
	require.NoError(t, err)

	// Erase removed posts, as the indexer does after some hours.
	erase := func(within time.Duration) (posts, letters int) {
		posts, letters, err := indexer.Erase(b.ctx, indexer.EraseConfig{
			Database: store.Options{URL: d.database("indexer"), Password: d.secret("postgres_indexer.password")}, Within: within, ID: "erase",
		}, d.nats("indexer"), logger)
		require.NoError(t, err)
		return posts, letters
	}
	posts, _ := erase(week)
	require.Positive(t, posts)

	// Messages that no program can apply.
	stop()
	d.publishUnreadable(b.js, 3)
	running = nil
	run("indexer", indexerEnv)
	poll.Until(t, indexWait, func() (bool, string) {
		listed := once(0, "indexer", "dlq list", indexerEnv)
		return strings.Count(listed, `"reason":"unknown_version"`) == 3, listed
	})
	seqs, err := stream.DeadLetterSeqs(b.ctx, b.js)
	require.NoError(t, err)
	require.Contains(t, once(0, "indexer", fmt.Sprint("dlq show ", seqs[0]), indexerEnv), "of the future")
	once(1, "indexer", "dlq redrive --all", indexerEnv)
	once(0, "indexer", fmt.Sprint("dlq drop ", seqs[0]), indexerEnv)
	run("ingest", ingestEnv)

	once(0, "indexer", "rebuild", d.env("indexer", "owner"))
	once(0, "indexer", "verify", indexerEnv)
	once(0, "indexer", "verify --alone", d.env("", "api"))
	// The rebuild has stored the dropped dead letter again.
	_, letters := erase(time.Nanosecond)
	require.Equal(t, 3, letters)
	once(0, "indexer", "dlq redrive --all", indexerEnv) // there are none, but it counts them
	b.settle(host, url)
	b.check(url)

	stop()
	running = api
	stop()
	d.requireNoRefusal()
	require.Empty(t, rights.unused(), "rights that are granted but not used")
}

// publishUnreadable stores messages of a later version, followed by a copy of the last message,
// which holds the position from which ingest continues.
func (d *deployed) publishUnreadable(js jetstream.JetStream, n int) {
	d.t.Helper()
	s, err := js.Stream(d.t.Context(), stream.Posts)
	require.NoError(d.t, err)
	last, err := s.GetMsg(d.t.Context(), s.CachedInfo().State.LastSeq)
	require.NoError(d.t, err)
	for range n {
		_, err := js.Publish(d.t.Context(), last.Subject, []byte(`{"v":99,"kind":"of the future"}`))
		require.NoError(d.t, err)
	}
	_, err = js.Publish(d.t.Context(), last.Subject, last.Data)
	require.NoError(d.t, err)
	// Also erase the end, so that ingest searches backward from there.
	ack, err := js.Publish(d.t.Context(), last.Subject, last.Data)
	require.NoError(d.t, err)
	require.NoError(d.t, s.DeleteMsg(d.t.Context(), ack.Sequence))
}

// refusalLimit is how long NATS may take to answer or refuse.
const refusalLimit = 20 * time.Second

// natsStreams are all streams; natsStreamRights are the operations on a stream or its messages.
var (
	natsStreams      = []string{"POSTS", "POSTS_DLQ", "INGEST_LOG", "KV_TAGSTREAM_LEASES", "KV_TAGSTREAM_POSITIONS"}
	natsStreamRights = []string{
		"STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.INFO", "STREAM.MSG.DELETE", "STREAM.MSG.GET", "STREAM.SNAPSHOT",
		"STREAM.RESTORE", "STREAM.PEER.REMOVE", "STREAM.LEADER.STEPDOWN", "DIRECT.GET", "CONSUMER.NAMES", "CONSUMER.LIST", "CONSUMER.CREATE",
	}
	natsOtherRights = []string{
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.OTHER", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE",
		"$JS.API.ACCOUNT.PURGE.TAGSTREAM", "$JS.API.CONSUMER.CREATE.POSTS.spy", "$JS.API.CONSUMER.CREATE.KV_TAGSTREAM_LEASES.spy",
		"$JS.API.CONSUMER.DURABLE.CREATE.POSTS.spy", "$JS.API.CONSUMER.PAUSE.POSTS.spy", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.TAGSTREAM.CONNZ",
		"posts.create", "posts_dlq.1", "ingest_log", "$KV.TAGSTREAM_LEASES.ingest", "$KV.TAGSTREAM_LEASES.other",
		"$KV.TAGSTREAM_POSITIONS.ingest", "$KV.TAGSTREAM_POSITIONS.other", "$KV.TAGSTREAM_POSITIONS.job",
		"_INBOX_ingest.x", "_INBOX_indexer.x", "_INBOX_operator.x", "other",
	}
)

// natsRights are the rights that each user has.
var natsRights = map[string][]string{
	"ingest": {
		"$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*", "$JS.API.INFO",
		"$JS.API.STREAM.INFO.*",
		"$JS.API.STREAM.MSG.GET.POSTS", "$JS.API.STREAM.MSG.GET.INGEST_LOG", "$JS.API.STREAM.MSG.GET.KV_TAGSTREAM_LEASES",
		"$JS.API.STREAM.MSG.GET.KV_TAGSTREAM_POSITIONS",
		"$JS.API.CONSUMER.CREATE.POSTS.spy", "$JS.API.CONSUMER.CREATE.KV_TAGSTREAM_LEASES.spy",
		"posts.create", "ingest_log", "$KV.TAGSTREAM_LEASES.ingest", "$KV.TAGSTREAM_POSITIONS.ingest", "$KV.TAGSTREAM_POSITIONS.job",
	},
	"indexer": {
		"$JS.API.STREAM.INFO.POSTS", "$JS.API.STREAM.INFO.POSTS_DLQ", "$JS.API.STREAM.MSG.GET.POSTS", "$JS.API.STREAM.MSG.GET.POSTS_DLQ",
		"$JS.API.STREAM.MSG.DELETE.POSTS", "$JS.API.STREAM.MSG.DELETE.POSTS_DLQ", "$JS.API.STREAM.PURGE.POSTS_DLQ",
		"$JS.API.CONSUMER.CREATE.POSTS.spy", "posts_dlq.1",
	},
}

// In TestRefusals each user and role of deploy/ tries what it must not do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	d := newDeployed(t)
	js, err := jetstream.New(d.nats("ingest"))
	require.NoError(t, err)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	require.NoError(t, store.Migrate(t.Context(), store.Options{URL: d.database("owner"), Password: d.secret("postgres_owner.password")}, slog.New(slog.DiscardHandler)))
	d.requireNoRefusal()
	d.tryStrangers(t)
	d.tryUsers(t)
	d.tryLogins(t)
	d.tryRoles(t)
}

// tryUsers tries everything as each NATS user. It runs last, since some attempts succeed.
func (d *deployed) tryUsers(t *testing.T) {
	subjects := slices.Clone(natsOtherRights)
	for _, s := range natsStreams {
		for _, right := range natsStreamRights {
			subjects = append(subjects, "$JS.API."+right+"."+s)
		}
	}
	known := func(subject string) bool { // $JS.API.STREAM.x.* with any of our streams
		return slices.Contains(subjects, subject) || strings.HasSuffix(subject, ".*")
	}
	for user, rights := range natsRights {
		var refused []string
		closed := make(chan struct{})
		nc := d.nats(user, nats.ClosedHandler(func(*nats.Conn) { close(closed) }), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			refused = append(refused, err.Error()) // called from one goroutine
		}))
		may := func(subject string) bool {
			i := strings.LastIndexByte(subject, '.')
			return slices.Contains(rights, subject) || slices.Contains(natsStreams, subject[i+1:]) && slices.Contains(rights, subject[:max(i, 0)]+".*")
		}
		for _, right := range rights {
			require.True(t, known(right), right)
		}
		for _, subject := range subjects {
			require.NoError(t, nc.PublishRequest(subject, nc.NewRespInbox(), []byte("{")))
		}
		for _, subject := range []string{">", "*", "_INBOX.>", "_INBOX_operator.>", "posts.>", "posts_dlq.*", "$KV.>", "$JS.API.>", "$JS.EVENT.>", "$SYS.>"} {
			_, err := nc.SubscribeSync(subject)
			require.NoError(t, err)
		}
		require.NoError(t, nc.FlushTimeout(refusalLimit))
		nc.Close()
		<-closed
		text := strings.ToLower(strings.Join(refused, "\n"))
		for _, subject := range subjects {
			require.Equal(t, !may(subject), strings.Contains(text, strings.ToLower(fmt.Sprintf("publish to %q", subject))), "%s %s: %s", user, subject, text)
		}
		require.Equal(t, 10, strings.Count(text, "for subscription to"), "%s", text)
	}
}

// tryStrangers tries to connect to NATS with other clients.
func (d *deployed) tryStrangers(t *testing.T) {
	stranger, err := nkeys.CreateUser()
	require.NoError(t, err)
	key, err := stranger.PublicKey()
	require.NoError(t, err)
	ca, secret := nats.RootCAs(d.path("/run/secrets/ca.crt")), nats.NkeyOptionFromSeed
	good, err := secret(d.path("/run/secrets/nats_ingest.nk"))
	require.NoError(t, err)
	for _, c := range []struct {
		name, url, refusal string
		options            []nats.Option
	}{
		{"nobody", d.natsURL, "Authorization Violation", []nats.Option{ca}},
		{"an unknown key", d.natsURL, "Authorization Violation", []nats.Option{ca, nats.Nkey(key, stranger.Sign)}},
		{"a password", d.natsURL, "Authorization Violation", []nats.Option{ca, nats.UserInfo("ingest", "guess")}},
		{"no authority", d.natsURL, "certificate signed by unknown authority", []nats.Option{good}},
		{"another name", d.natsURL, "certificate is valid for", []nats.Option{ca, good, nats.Secure(&tls.Config{ServerName: "postgres"})}},
		{"an old TLS", d.natsURL, "protocol version", []nats.Option{ca, good, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})}},
	} {
		_, err := nats.Connect(c.url, c.options...)
		require.ErrorContains(t, err, c.refusal, c.name)
	}
	nc := d.nats("ingest")
	require.EqualValues(t, server.MAX_PAYLOAD_SIZE, nc.MaxPayload())
	require.ErrorIs(t, nc.Publish("posts.create", make([]byte, nc.MaxPayload()+1)), nats.ErrMaxPayload)
}

// connect logs in to Postgres.
func (d *deployed) connect(ctx context.Context, url, password string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.Password = password
	return pgx.ConnectConfig(ctx, cfg)
}

// tryRoles tries what each Postgres role may and must not do.
func (d *deployed) tryRoles(t *testing.T) {
	const (
		ok       = ""
		denied   = "42501" // insufficient_privilege
		readOnly = "25006" // read_only_sql_transaction
	)
	for _, c := range []struct{ role, sql, code string }{
		{"api", "SELECT count(*) FROM tagstream.posts", ok},
		{"api", "INSERT INTO tagstream.tags (name) VALUES ('x')", readOnly},
		{"api", "BEGIN READ WRITE; INSERT INTO tagstream.tags (name) VALUES ('x')", denied},
		{"api", "BEGIN READ WRITE; DELETE FROM tagstream.posts", denied},
		{"api", "BEGIN READ WRITE; TRUNCATE tagstream.posts", denied},
		{"api", "BEGIN READ WRITE; UPDATE tagstream.checkpoint SET seq = 0", denied},
		{"api", "BEGIN READ WRITE; SELECT nextval(pg_get_serial_sequence('tagstream.tags', 'id'))", denied},
		{"api", "BEGIN READ WRITE; SELECT 1 FROM tagstream.checkpoint FOR UPDATE", denied},
		{"api", "BEGIN READ WRITE; CREATE TABLE tagstream.x ()", denied},
		{"api", "BEGIN READ WRITE; CREATE TABLE public.x ()", denied},
		{"api", "BEGIN READ WRITE; CREATE TEMPORARY TABLE x ()", denied},
		{"api", "BEGIN READ WRITE; CREATE SCHEMA x", denied},
		{"api", "BEGIN READ WRITE; CREATE FUNCTION pg_temp.x() RETURNS int LANGUAGE sql AS 'SELECT 1'", denied},
		{"api", "SET ROLE tagstream_writer", denied},
		{"api", "SET ROLE tagstream_owner", denied},
		{"api", "SET SESSION AUTHORIZATION postgres", denied},
		{"api", "SELECT pg_read_file('/etc/passwd')", denied},
		{"api", "SELECT lo_import('/etc/passwd')", denied},
		{"api", "COPY tagstream.tags TO PROGRAM 'cat'", denied},
		{"api", "COPY tagstream.tags TO '/tmp/tags'", denied},
		{"api", "SELECT rolpassword FROM pg_authid", denied},
		{"api", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tagstream_owner'", ok}, // none there
		{"api", "ALTER SYSTEM SET log_statement = 'all'", denied},
		{"api", "BEGIN READ WRITE; CREATE ROLE x", denied},

		{"indexer", "SELECT count(*) FROM tagstream.posts", ok},
		{"indexer", "BEGIN; UPDATE tagstream.tags SET posts = posts; ROLLBACK", ok},
		{"indexer", "TRUNCATE tagstream.posts", denied},
		{"indexer", "DROP TABLE tagstream.posts", denied},
		{"indexer", "ALTER TABLE tagstream.posts ADD x int", denied},
		{"indexer", "CREATE INDEX ON tagstream.posts (rkey)", denied},
		{"indexer", "CREATE TRIGGER x BEFORE INSERT ON tagstream.posts FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()", denied},
		{"indexer", "DROP SCHEMA tagstream CASCADE", denied},
		{"indexer", "ALTER SCHEMA tagstream RENAME TO x", denied},
		{"indexer", "CREATE TABLE tagstream.x ()", denied},
		{"indexer", "CREATE TABLE public.x ()", denied},
		{"indexer", "CREATE SCHEMA x", denied},
		{"indexer", "UPDATE tagstream.schema_migrations SET version = 1", denied},
		{"indexer", "SET ROLE tagstream_owner", denied},
		{"indexer", "GRANT tagstream_writer TO tagstream_api", denied},
		{"indexer", "GRANT SELECT ON tagstream.posts TO tagstream_metrics", ok}, // a warning: it grants nothing, see below
		{"indexer", "COPY tagstream.tags FROM PROGRAM 'cat'", denied},

		{"owner", "BEGIN; CREATE SCHEMA owners; ROLLBACK", ok},
		{"owner", "CREATE ROLE x", denied},
		{"owner", "ALTER ROLE tagstream_api SUPERUSER", denied},
		{"owner", "ALTER ROLE tagstream_api PASSWORD 'x'", denied},
		{"owner", "CREATE DATABASE x", denied},
		{"owner", "CREATE EXTENSION file_fdw", denied},
		{"owner", "COPY tagstream.tags TO PROGRAM 'cat'", denied},
		{"owner", "SELECT pg_reload_conf()", denied},

		{"metrics", "SELECT count(*) FROM pg_stat_activity", ok},
		{"metrics", "SELECT count(*) FROM tagstream.posts", denied},
		{"metrics", "BEGIN READ WRITE; CREATE TEMPORARY TABLE x ()", denied},
		{"metrics", "SET ROLE tagstream_reader", denied},
		{"metrics", "SELECT rolpassword FROM pg_authid", denied},
	} {
		conn, err := d.connect(t.Context(), d.database(c.role), d.secret("postgres_"+c.role+".password"))
		require.NoError(t, err, c.role)
		// Several statements together, as psql sends them.
		_, err = conn.PgConn().Exec(t.Context(), c.sql).ReadAll()
		require.NoError(t, conn.Close(t.Context()))
		if c.code == ok {
			require.NoError(t, err, "%s: %s", c.role, c.sql)
			continue
		}
		var refused *pgconn.PgError
		if !assert.ErrorAs(t, err, &refused, "%s: %s", c.role, c.sql) {
			continue
		}
		assert.Equal(t, c.code, refused.Code, "%s: %s: %v", c.role, c.sql, err)
	}
	for _, c := range []struct{ role, setting, want string }{
		{"api", "default_transaction_read_only", "on"},
		{"api", "statement_timeout", "10s"},
		{"api", "idle_in_transaction_session_timeout", "10s"},
		{"api", "lock_timeout", "5s"},
		{"api", "temp_file_limit", "256MB"},
		{"indexer", "statement_timeout", "1h"},
		{"indexer", "idle_in_transaction_session_timeout", "5min"},
		{"indexer", "lock_timeout", "1min"},
		{"owner", "idle_in_transaction_session_timeout", "15min"},
		{"metrics", "default_transaction_read_only", "on"},
		{"metrics", "statement_timeout", "10s"},
		{"metrics", "idle_in_transaction_session_timeout", "10s"},
		{"metrics", "lock_timeout", "1s"},
	} {
		conn, err := d.connect(t.Context(), d.database(c.role), d.secret("postgres_"+c.role+".password"))
		require.NoError(t, err)
		var got string
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT current_setting($1)", c.setting).Scan(&got))
		require.NoError(t, conn.Close(t.Context()))
		require.Equal(t, c.want, got, "%s: %s", c.role, c.setting)
	}
}

// tryLogins tries forbidden logins, as roles and as others.
func (d *deployed) tryLogins(t *testing.T) {
	password := d.secret("postgres_api.password")
	good := d.database("api")
	for _, c := range []struct{ name, url, password, refusal string }{
		{"without TLS", strings.Replace(good, "verify-full", "disable", 1), password, "no encryption"},
		{"a wrong password", good, "guess", "password authentication failed"},
		{"the password of another", good, d.secret("postgres_owner.password"), "password authentication failed"},
		{"no password", good, "", "password authentication failed"},
		{"another database", strings.Replace(good, "/tagstream?", "/postgres?", 1), password, "no pg_hba.conf entry"},
		{"the superuser", strings.Replace(good, "tagstream_api@", "postgres@", 1), password, "no pg_hba.conf entry"},
		{"the replicator, to a database", d.database("replicator"), d.secret("postgres_replicator.password"), "no pg_hba.conf entry"},
		{"a group", strings.Replace(good, "tagstream_api@", "tagstream_writer@", 1), password, "no pg_hba.conf entry"},
		{"another authority", strings.Replace(good, d.path("/run/secrets/ca.crt"), d.otherAuthority(t), 1), password, "certificate signed by unknown authority"},
	} {
		_, err := d.connect(t.Context(), c.url, c.password)
		require.ErrorContains(t, err, c.refusal, c.name)
	}
}

// otherAuthority is the file of another authority's certificate.
func (d *deployed) otherAuthority(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "other")
	makeSecrets(t, dir)
	_, err := os.Stat(filepath.Join(dir, "ca.crt"))
	require.NoError(t, err)
	return filepath.Join(dir, "ca.crt")
}
