package containers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

// connects tries a TCP connection from inside the network of a service.
func (s *stack) connects(t *testing.T, service, address string, port int) bool {
	t.Helper()
	// The services' images have no tool for that.
	probe, err := testcontainers.Run(t.Context(), image("nats"),
		testcontainers.WithEntrypoint("sh", "-c", fmt.Sprintf("wget -q -T 2 -O /dev/null http://%s:%d/ 2>&1; true", address, port)),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			h.NetworkMode = container.NetworkMode("container:" + s.box(service).id)
		}),
		testcontainers.WithWaitStrategy(wait.ForExit().WithExitTimeout(20*time.Second)),
	)
	testcontainers.CleanupContainer(t, probe)
	require.NoError(t, err)
	says := (&box{engine: s.engine, id: probe.GetContainerID()}).logs(t.Context(), 5)
	// Whatever answers, the connection works.
	for _, unreached := range []string{"timed out", "unreachable", "refused", "bad address"} {
		if strings.Contains(says, unreached) {
			return false
		}
	}
	return true
}

// answerLimit bounds the wait for NATS's answer. A forbidden request is reported as an error of the
// connection instead.
const answerLimit = 3 * time.Second

// testUsers tries what each NATS user may and must not do.
func testUsers(t *testing.T, s *stack) {
	const ok, denied = true, false
	for _, c := range []struct {
		user, subject, data string
		allowed             bool
	}{
		{"ingest", "$JS.API.STREAM.INFO.POSTS", "", ok},
		{"ingest", "$JS.API.STREAM.MSG.GET.POSTS", `{"seq":1}`, ok},
		{"ingest", "$JS.API.STREAM.DELETE.POSTS", "", denied},
		{"ingest", "$JS.API.STREAM.PURGE.POSTS", "", denied},
		{"ingest", "$JS.API.STREAM.MSG.DELETE.POSTS", `{"seq":1}`, denied},
		{"ingest", "$JS.API.STREAM.CREATE.OTHER", `{"name":"OTHER"}`, denied},
		{"ingest", "$JS.API.STREAM.PURGE.POSTS_DLQ", "", denied},
		{"ingest", "$JS.API.STREAM.NAMES", "", denied},
		{"ingest", "$JS.API.CONSUMER.CREATE.POSTS_DLQ.spy", `{"stream_name":"POSTS_DLQ","config":{"name":"spy"}}`, denied},
		{"ingest", "$JS.API.STREAM.SNAPSHOT.POSTS", `{"deliver_subject":"x"}`, denied},
		{"ingest", "posts_dlq.1", "forged", denied},
		{"ingest", "$KV.TAGSTREAM_LEASES.other", "x", denied},

		{"indexer", "$JS.API.STREAM.INFO.POSTS", "", ok},
		{"indexer", "$JS.API.STREAM.INFO.POSTS_DLQ", "", ok},
		{"indexer", "$JS.API.STREAM.MSG.GET.POSTS", `{"seq":1}`, ok},
		{"indexer", "posts.create", "forged", denied},
		{"indexer", "posts.account", "forged", denied},
		{"indexer", "ingest_log", "forged", denied},
		{"indexer", "$KV.TAGSTREAM_POSITIONS.job", "forged", denied},
		{"indexer", "$KV.TAGSTREAM_LEASES.ingest", "stolen", denied},
		{"indexer", "$JS.API.STREAM.INFO.KV_TAGSTREAM_LEASES", "", denied},
		{"indexer", "$JS.API.STREAM.UPDATE.POSTS", `{"name":"POSTS"}`, denied},
		{"indexer", "$JS.API.STREAM.DELETE.POSTS", "", denied},
		{"indexer", "$JS.API.STREAM.PURGE.POSTS", "", denied},
		{"indexer", "$JS.API.STREAM.MSG.DELETE.INGEST_LOG", `{"seq":1}`, denied},
		{"indexer", "$JS.API.STREAM.DELETE.POSTS_DLQ", "", denied},
		{"indexer", "$JS.API.INFO", "", denied},
		{"indexer", "$SYS.REQ.SERVER.PING", "", denied},

		{"operator", "$JS.API.STREAM.NAMES", "", ok},
	} {
		t.Run(c.user+" "+c.subject, func(t *testing.T) {
			violations := make(chan error, 8)
			nc := s.nats(c.user, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				select {
				case violations <- err:
				default: // one is enough
				}
			}))
			if c.allowed {
				_, err := nc.Request(c.subject, []byte(c.data), answerLimit)
				require.NoError(t, err)
				return
			}
			answers, err := nc.SubscribeSync(nc.NewRespInbox())
			require.NoError(t, err)
			require.NoError(t, nc.PublishRequest(c.subject, answers.Subject, []byte(c.data)))
			select {
			case violation := <-violations:
				require.ErrorIs(t, violation, nats.ErrPermissionViolation)
			case <-time.After(answerLimit):
				t.Fatal("no violation was reported")
			}
			require.NoError(t, nc.FlushTimeout(answerLimit))
			count, _, err := answers.Pending()
			require.NoError(t, err)
			require.Zero(t, count, "it must not be answered")
		})
	}
	for _, user := range []string{"ingest", "indexer"} {
		for _, subject := range []string{"posts.>", "_INBOX.>", "_INBOX_operator.>", ">", "$KV.>"} {
			t.Run(user+" listens to "+subject, func(t *testing.T) {
				nc := s.nats(user, nats.PermissionErrOnSubscribe(true))
				sub, err := nc.SubscribeSync(subject)
				require.NoError(t, err)
				_, err = sub.NextMsg(answerLimit)
				require.ErrorIs(t, err, nats.ErrPermissionViolation)
			})
		}
	}
	t.Run("nobody", func(t *testing.T) {
		address := "tls://" + s.box("nats").address(t, "stream") + ":4222"
		_, err := nats.Connect(address, nats.RootCAs(s.secrets+"/ca.crt"))
		require.ErrorContains(t, err, "certificate", "the name must not match")
		_, err = nats.Connect("nats://"+s.box("nats").address(t, "stream")+":4222", nats.Secure())
		require.Error(t, err, "the authority must be unknown")
	})
}

// testRoles tries what each Postgres role may and must not do, from inside the container of
// Postgres and over TLS like its program.
func testRoles(t *testing.T, s *stack) {
	postgres := s.box("postgres")
	as := func(t *testing.T, role, password, options, sql string) (int, string) {
		t.Helper()
		return postgres.exec(t, "env", "PGPASSWORD="+password, "psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-At",
			"host=postgres dbname=tagstream user=tagstream_"+role+" "+options, "-c", sql)
	}
	const verified = "sslmode=verify-full sslrootcert=/run/secrets/ca.crt"
	const ok = ""
	for _, c := range []struct{ role, sql, refusal string }{
		{"api", "SELECT count(*) FROM tagstream.posts", ok},
		{"api", "INSERT INTO tagstream.tags (name) VALUES ('x')", "read-only transaction"},
		{"api", "BEGIN READ WRITE; INSERT INTO tagstream.tags (name) VALUES ('x')", "permission denied"},
		{"api", "BEGIN READ WRITE; DELETE FROM tagstream.posts", "permission denied"},
		{"api", "BEGIN READ WRITE; TRUNCATE tagstream.posts", "permission denied"},
		{"api", "BEGIN READ WRITE; UPDATE tagstream.checkpoint SET seq = 0", "permission denied"},
		{"api", "BEGIN READ WRITE; CREATE TABLE tagstream.x ()", "permission denied"},
		{"api", "BEGIN READ WRITE; CREATE TABLE public.x ()", "permission denied"},
		{"api", "BEGIN READ WRITE; CREATE TEMPORARY TABLE x ()", "permission denied"},
		{"api", "BEGIN READ WRITE; CREATE SCHEMA x", "permission denied"},
		{"api", "SET ROLE tagstream_writer", "permission denied"},
		{"api", "SET ROLE tagstream_owner", "permission denied"},
		{"api", "SELECT pg_read_file('/etc/passwd')", "permission denied"},
		{"api", "COPY tagstream.tags TO PROGRAM 'cat'", "permission denied"},
		{"api", "SELECT rolpassword FROM pg_authid", "permission denied"},

		{"indexer", "SELECT count(*) FROM tagstream.posts", ok},
		{"indexer", "BEGIN; UPDATE tagstream.tags SET posts = posts; ROLLBACK", ok},
		{"indexer", "TRUNCATE tagstream.posts", "permission denied"},
		{"indexer", "DROP TABLE tagstream.posts", "must be owner"},
		{"indexer", "ALTER TABLE tagstream.posts ADD x int", "must be owner"},
		{"indexer", "DROP SCHEMA tagstream CASCADE", "must be owner"},
		{"indexer", "CREATE TABLE tagstream.x ()", "permission denied"},
		{"indexer", "CREATE SCHEMA x", "permission denied"},
		{"indexer", "UPDATE tagstream.schema_migrations SET version = 1", "permission denied"},
		{"indexer", "SET ROLE tagstream_owner", "permission denied"},
		{"indexer", "GRANT tagstream_writer TO tagstream_api", "permission denied"},

		{"owner", "CREATE SCHEMA owners; DROP SCHEMA owners", ok},
		{"owner", "CREATE ROLE x", "permission denied"},
		{"owner", "ALTER ROLE tagstream_api SUPERUSER", "permission denied"},
		{"owner", "CREATE DATABASE x", "permission denied"},
		{"owner", "COPY tagstream.tags TO PROGRAM 'cat'", "permission denied"},

		{"metrics", "SELECT count(*) FROM pg_stat_activity", ok},
		{"metrics", "SELECT count(*) FROM tagstream.posts", "permission denied"},

		{"replicator", "SELECT 1", "no pg_hba.conf entry"},
	} {
		t.Run(c.role+" "+c.sql, func(t *testing.T) {
			code, says := as(t, c.role, s.secret("postgres_"+c.role+".password"), verified, c.sql)
			if c.refusal == ok {
				require.Zero(t, code, says)
				return
			}
			require.NotZero(t, code, "it must be refused: %s", says)
			require.Contains(t, says, c.refusal)
		})
	}
	password := s.secret("postgres_api.password")
	t.Run("without TLS", func(t *testing.T) {
		code, says := as(t, "api", password, "sslmode=disable", "SELECT 1")
		require.NotZero(t, code)
		require.Contains(t, says, "no encryption")
	})
	t.Run("with a wrong password", func(t *testing.T) {
		code, says := as(t, "api", "guess", verified, "SELECT 1")
		require.NotZero(t, code)
		require.Contains(t, says, "password authentication failed")
	})
	t.Run("the superuser from elsewhere", func(t *testing.T) {
		code, says := postgres.exec(t, "psql", "--no-psqlrc", "-c", "SELECT 1", "host=postgres dbname=tagstream user=postgres sslmode=require")
		require.NotZero(t, code)
		require.Contains(t, says, "no pg_hba.conf entry")
	})
	t.Run("another database", func(t *testing.T) {
		code, says := postgres.exec(t, "env", "PGPASSWORD="+password, "psql", "--no-psqlrc", "-c", "SELECT 1",
			"host=postgres dbname=postgres user=tagstream_api sslmode=require")
		require.NotZero(t, code)
		require.Contains(t, says, "no pg_hba.conf entry")
	})
}
