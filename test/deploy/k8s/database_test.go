package k8s

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

// cluster is the part of a CloudNativePG Cluster that rules check; its schema checks all of it.
type cluster struct {
	Spec clusterSpec `json:"spec"`
}

type clusterSpec struct {
	Bootstrap struct {
		InitDB struct {
			Database               string   `json:"database"`
			Owner                  string   `json:"owner"`
			PostInitSQL            []string `json:"postInitSQL"`
			PostInitApplicationSQL []string `json:"postInitApplicationSQL"`
		} `json:"initdb"`
	} `json:"bootstrap"`
	Managed struct {
		Roles []struct {
			Name            string   `json:"name"`
			Login           bool     `json:"login"`
			ConnectionLimit int      `json:"connectionLimit"`
			InRoles         []string `json:"inRoles"`
		} `json:"roles"`
	} `json:"managed"`
	PostgreSQL struct {
		Parameters map[string]string `json:"parameters"`
	} `json:"postgresql"`
}

// apiConnections is the number of connections of one api (services/api, defaultConns).
const apiConnections = 8

// operatorsConnections is the maximum of the operator's own sessions and the superuser's reserve.
const operatorsConnections = 10

// operators are settings of postgresql.conf that the operator manages itself, or that its log does
// not use.
var operators = []string{
	"listen_addresses", "unix_socket_directories", "ssl", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_min_protocol_version",
	"hot_standby", "max_wal_senders", "max_replication_slots", "log_line_prefix",
}

func databaseProblems(t testing.TB, all manifests) []string {
	t.Helper()
	var out []string
	clusters := of[cluster](t, all, "Cluster")
	if len(clusters) != 1 {
		return []string{fmt.Sprintf("there are %d Postgres clusters", len(clusters))}
	}
	c := clusters[0].Spec
	for name, value := range postgresConf(t) {
		if got := c.PostgreSQL.Parameters[name]; got != value && !slices.Contains(operators, name) {
			out = append(out, fmt.Sprintf("%s is %q, but %q in deploy/postgres/postgresql.conf", name, got, value))
		}
	}
	for _, name := range refusedParameters(t) {
		if value, set := c.PostgreSQL.Parameters[name]; set {
			out = append(out, fmt.Sprintf("the operator refuses %s = %s", name, value))
		}
	}
	for _, w := range workloads(t, all) {
		if w.template == nil {
			continue
		}
		for _, e := range w.template.Spec.Containers[0].Env {
			if e.Name == "TAGSTREAM_DATABASE_URL" {
				out = append(out, urlProblems(w.name, e.Value, &c)...)
			}
		}
	}
	return append(out, connectionProblems(t, all, &c)...)
}

// postgresConf parses deploy/postgres/postgresql.conf.
func postgresConf(t testing.TB) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/postgres/postgresql.conf"))
	require.NoError(t, err)
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+) = '?(.*?)'?$`).FindAllStringSubmatch(string(text), -1) {
		out[m[1]] = m[2]
	}
	require.NotEmpty(t, out)
	return out
}

// refusedParameters returns the parameters that the operator's admission refuses, from its source.
func refusedParameters(t testing.TB) []string {
	t.Helper()
	dir, err := moduleDir(operatorModule, operatorSum)
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(dir, "pkg/postgres/configuration.go"))
	require.NoError(t, err)
	var out []string
	for _, m := range regexp.MustCompile(`"([\w.]+)": +(?:fixed|blocked)ConfigurationParameter`).FindAllStringSubmatch(string(text), -1) {
		out = append(out, m[1])
	}
	require.NotEmpty(t, out)
	return out
}

var databaseURL = regexp.MustCompile(`^postgres://(\w+)@([^/]+)/(\w+)\?(.*)$`)

// urlProblems checks that each program connects as an existing role to the Services that the
// operator makes, and verifies their certificate.
func urlProblems(workload, address string, c *clusterSpec) []string {
	m := databaseURL.FindStringSubmatch(address)
	if m == nil {
		return []string{workload + ": " + address + " is not a URL of Postgres"}
	}
	var out []string
	role, hosts, database, options := m[1], strings.Split(m[2], ","), m[3], m[4]
	roles := []string{c.Bootstrap.InitDB.Owner}
	for _, r := range c.Managed.Roles {
		if r.Login {
			roles = append(roles, r.Name)
		}
	}
	if !slices.Contains(roles, role) {
		out = append(out, fmt.Sprintf("%s: nothing makes the role %s", workload, role))
	}
	if database != c.Bootstrap.InitDB.Database {
		out = append(out, fmt.Sprintf("%s: nothing makes the database %s", workload, database))
	}
	for _, host := range hosts {
		if host != "postgres-rw:5432" && host != "postgres-ro:5432" {
			out = append(out, fmt.Sprintf("%s: nothing makes the Service %s", workload, host))
		}
	}
	if workload != "api" && (hosts[0] != "postgres-rw:5432" || !strings.Contains(options, "target_session_attrs=read-write")) {
		out = append(out, workload+": does not write to the primary")
	}
	if !strings.HasPrefix(options, "sslmode=verify-full&sslrootcert=") {
		out = append(out, workload+": does not check the server's certificate")
	}
	return out
}

// connectionProblems checks that there are enough connections for the maximum number of programs.
func connectionProblems(t testing.TB, all manifests, c *clusterSpec) []string {
	t.Helper()
	var out []string
	most, limit := 1, 0
	for _, h := range of[autoscalingv2.HorizontalPodAutoscaler](t, all, "HorizontalPodAutoscaler") {
		most = int(h.Spec.MaxReplicas)
	}
	sum := 10 // the owner's, in postInitSQL
	for _, r := range c.Managed.Roles {
		sum += r.ConnectionLimit
		if r.Name == "tagstream_api" {
			limit = r.ConnectionLimit
		}
	}
	if need := (most + 1) * apiConnections; need > limit {
		out = append(out, fmt.Sprintf("%d api during a rolling update need %d connections, but the role may have %d", most, need, limit))
	}
	if total, err := strconv.Atoi(c.PostgreSQL.Parameters["max_connections"]); err != nil || sum+operatorsConnections > total {
		out = append(out, fmt.Sprintf("the roles may have %d connections, but the server only %s", sum, c.PostgreSQL.Parameters["max_connections"]))
	}
	return out
}

// TestRoles does on a real Postgres what the operator does with the Cluster, then what "indexer
// migrate" does, and tries what each role may and must not do.
func TestRoles(t *testing.T) {
	t.Parallel()
	c := of[cluster](t, parse(t, renderWith(t, "overlays/replicated")), "Cluster")[0].Spec
	server := pgtest.Server(t)
	run := func(database string, statements ...string) {
		pool := pgtest.Pool(t, on(t, server.URL, database, "", ""))
		for _, sql := range statements {
			_, err := pool.Exec(t.Context(), sql)
			require.NoError(t, err, sql)
		}
	}
	// In the operator's order (ConfigureNewInstance in its initdb.go), then its reconciliation of
	// roles.
	run("postgres", "CREATE ROLE "+c.Bootstrap.InitDB.Owner+" LOGIN PASSWORD 'secret'")
	run("postgres", c.Bootstrap.InitDB.PostInitSQL...)
	run("postgres", "CREATE DATABASE "+c.Bootstrap.InitDB.Database+" OWNER "+c.Bootstrap.InitDB.Owner)
	run(c.Bootstrap.InitDB.Database, c.Bootstrap.InitDB.PostInitApplicationSQL...)
	for _, r := range c.Managed.Roles {
		run("postgres", fmt.Sprintf("DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[1]s') THEN CREATE ROLE %[1]s; END IF; END $$", r.Name),
			fmt.Sprintf("ALTER ROLE %s LOGIN CONNECTION LIMIT %d PASSWORD 'secret'", r.Name, r.ConnectionLimit))
		for _, group := range r.InRoles {
			run("postgres", "GRANT "+group+" TO "+r.Name)
		}
	}

	as := func(role string) store.Options {
		return store.Options{URL: on(t, server.URL, c.Bootstrap.InitDB.Database, role, "secret")}
	}
	require.NoError(t, store.Migrate(t.Context(), as("tagstream_owner"), slog.New(slog.DiscardHandler)))
	writer, err := write.Open(t.Context(), as("tagstream_indexer"), "test")
	require.NoError(t, err)
	t.Cleanup(writer.Close)
	_, err = writer.Acquire(t.Context())
	require.NoError(t, err)
	reader, err := query.Open(t.Context(), as("tagstream_api"))
	require.NoError(t, err)
	t.Cleanup(reader.Close)
	_, err = reader.Status(t.Context())
	require.NoError(t, err)

	for _, try := range []struct{ role, sql, refusal string }{
		{"tagstream_api", "INSERT INTO tagstream.tags (name) VALUES ('x')", "read-only transaction"},
		{"tagstream_api", "BEGIN READ WRITE; DELETE FROM tagstream.posts", "permission denied"},
		{"tagstream_api", "BEGIN READ WRITE; CREATE TABLE public.x ()", "permission denied"},
		{"tagstream_api", "BEGIN READ WRITE; CREATE TEMPORARY TABLE x ()", "permission denied"},
		{"tagstream_api", "SET ROLE tagstream_writer", "permission denied"},
		{"tagstream_indexer", "CREATE SCHEMA x", "permission denied"},
		{"tagstream_indexer", "DROP TABLE tagstream.posts", "must be owner"},
		{"tagstream_indexer", "UPDATE tagstream.schema_migrations SET version = 1", "permission denied"},
		{"tagstream_owner", "CREATE ROLE x", "permission denied"},
		{"tagstream_owner", "CREATE DATABASE x", "permission denied"},
	} {
		conn, err := pgx.Connect(t.Context(), as(try.role).URL)
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), try.sql, pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, conn.Close(t.Context()))
		require.ErrorContains(t, err, try.refusal, "%s: %s", try.role, try.sql)
	}
}

// on returns the server's URL for another database and role.
func on(t testing.TB, server, database, role, password string) string {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	u.Path = database
	if role != "" {
		u.User = url.UserPassword(role, password)
	}
	return u.String()
}
