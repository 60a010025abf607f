package soak_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

const (
	accounts = 25
	backlog  = 120 // posts that are in the archive at the start

	ownerRole, indexerRole, apiRole = "tagstream_owner", "tagstream_indexer", "tagstream_api"
)

// binaries are the paths of everything that runs as a process.
type binaries struct {
	ingest, indexer, api, nats, jetstream string

	late func() (string, error) // builds a Jetstream server that stamps late, if a run needs one
}

// build builds them for the duration of the test.
func build(t *testing.T) binaries {
	t.Helper()
	dir := t.TempDir()
	if err := process.Build(t.Context(), dir, process.Ingest, process.Indexer, process.API, process.NATS); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	b := binaries{ingest: in("ingest"), indexer: in("indexer"), api: in("api"), nats: in("nats-server")}
	var err error
	if b.jetstream, err = simnet.BuildJetstream(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	b.late = sync.OnceValues(func() (string, error) { return simnet.BuildLateJetstream(t.Context(), "") })
	return b
}

// site is one installation: servers, programs, and the proxies between them.
type site struct {
	t   testing.TB
	dir string
	bin binaries
	log *fault.Log

	clock   *clock
	network *simnet.Network
	host    *simnet.Jetstream
	other   *simnet.Jetstream      // a second host, nil if there is none
	nats    *process.Program       // nil if there is a cluster
	cluster []*natstest.TestServer // nil if there is one server
	pg      *pgtest.PrivateServer
	super   *pgxpool.Pool // bypasses every proxy

	// Proxies in front of the Jetstream server, the NATS server and Postgres, by client.
	toHost, toOther                  *fault.Proxy
	ingestNATS, indexerNATS, opsNATS *fault.Proxy
	indexerPG, apiPG, ownerPG        *fault.Proxy

	ingest, indexer, api *process.Program
	standby              *process.Program // a second ingest or indexer, if one is running
	apiURL               string
	keys                 string
	started              int // number of started programs
	disks                map[string]*disk
	deny                 string   // the indexers' deny file
	deniedDIDs           []string // in it, sorted
	deniedTags           []string
	imported             map[string]bool // URIs of posts that have an imported time on a host
}

// clock is the network's clock: the wall clock or slow.
type clock struct {
	mu     sync.Mutex
	behind time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(-c.behind)
}

func (c *clock) set(behind time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behind = behind
}

// openSite starts the servers. Programs are started by startPrograms, once the
// database is migrated.
func openSite(t testing.TB, bin binaries, seed uint64, dir string, log *fault.Log, needs needs) *site {
	t.Helper()
	s := &site{t: t, dir: dir, bin: bin, log: log, clock: &clock{}, disks: map[string]*disk{}, imported: map[string]bool{}, deny: filepath.Join(dir, "deny.yaml")}
	s.must(process.WriteDenyFile(s.deny, ""))
	s.openPostgres()
	if needs.cluster {
		s.openCluster()
	} else {
		s.openNATS()
	}
	var err error
	s.network, err = simnet.New(simnet.Config{Seed: seed, Accounts: accounts, Clock: s.clock.now})
	require.NoError(t, err)
	require.NoError(t, simnet.Traffic{Count: backlog, Seed: seed, TagsOnly: true}.Run(t.Context(), s.network))
	if !needs.pair {
		s.host, s.toHost = s.openHost("jetstream", bin.jetstream)
		return s
	}
	// One of the two is late, sometimes the preferred one, sometimes the other.
	late, err := bin.late()
	require.NoError(t, err)
	pair := []string{bin.jetstream, late}
	if seed%2 == 0 {
		slices.Reverse(pair)
	}
	s.host, s.toHost = s.openHost("jetstream", pair[0])
	s.other, s.toOther = s.openHost("jetstream-other", pair[1])
	return s
}

// openHost starts a Jetstream server and a proxy in front of it.
func (s *site) openHost(name, binary string) (*simnet.Jetstream, *fault.Proxy) {
	// Not the test's context: it ends before the cleanup begins.
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	s.t.Cleanup(cancel)
	host, err := s.network.StartJetstream(ctx, simnet.JetstreamConfig{
		Binary: binary, DataDir: filepath.Join(s.dir, name), Args: []string{"--timestamp-import-token", importToken},
	})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = host.Stop() })
	u, err := url.Parse(host.URL())
	require.NoError(s.t, err)
	return host, fault.New(s.t, fault.Raw, u.Host, s.log)
}

func (s *site) openPostgres() {
	// Otherwise a commit could be lost for reasons outside the test.
	s.pg = pgtest.Server(s.t, pgtest.Setting("synchronous_commit", "on"), pgtest.Setting("max_connections", "60"))
	s.super = s.pg.Pool(s.t)
	for _, statement := range []string{
		"CREATE ROLE " + ownerRole + " LOGIN PASSWORD 'x'", "CREATE ROLE " + indexerRole + " LOGIN PASSWORD 'x'",
		"CREATE ROLE " + apiRole + " LOGIN PASSWORD 'x'", "CREATE DATABASE tagstream OWNER " + ownerRole,
	} {
		_, err := s.super.Exec(s.t.Context(), statement)
		require.NoError(s.t, err)
	}
	u := s.databaseURL("", nil)
	require.NoError(s.t, store.CreateRoles(s.t.Context(), store.Options{URL: u}, indexerRole, apiRole))
	s.super.Close()
	s.super = pgtest.Pool(s.t, u)
	for _, p := range []**fault.Proxy{&s.indexerPG, &s.apiPG, &s.ownerPG} {
		parsed, err := url.Parse(s.pg.URL)
		require.NoError(s.t, err)
		*p = fault.New(s.t, fault.Postgres, parsed.Host, s.log)
	}
}

// databaseURL returns the database's URL for a role through a proxy, both optional; by default for
// the superuser, without a proxy.
func (s *site) databaseURL(role string, through *fault.Proxy) string {
	u, err := url.Parse(s.pg.URL)
	require.NoError(s.t, err)
	u.Path = "/tagstream"
	if role != "" {
		u.User = url.UserPassword(role, "x")
	}
	if through != nil {
		u.Host = through.Addr()
	}
	return u.String()
}

func (s *site) openNATS() {
	addr, err := process.FreeAddr()
	require.NoError(s.t, err)
	config := filepath.Join(s.dir, "nats.conf")
	require.NoError(s.t, os.MkdirAll(s.natsDir(), 0o755))
	require.NoError(s.t, os.WriteFile(config, fmt.Appendf(nil, `
server_name: soak
listen: %q
max_payload: 4MB
jetstream { store_dir: %q, sync_interval: always, max_file: 10GB }
`, addr, s.natsDir()), 0o644))
	s.nats = &process.Program{Name: "nats", Path: s.bin.nats, Args: []string{"-c", config}, Log: filepath.Join(s.dir, "nats.log")}
	require.NoError(s.t, s.nats.Start())
	s.t.Cleanup(s.nats.End)
	for _, p := range []**fault.Proxy{&s.ingestNATS, &s.indexerNATS, &s.opsNATS} {
		*p = fault.New(s.t, fault.NATS, addr, s.log)
	}
	poll.NoError(s.t, settleLimit, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

func (s *site) natsDir() string { return filepath.Join(s.dir, "nats") }

// natsURL returns the server's URL, bypassing every proxy.
func (s *site) natsURL(through *fault.Proxy) string { return "nats://" + through.Addr() }

// program returns one of our programs, with its own log and addresses.
func (s *site) program(name, path string, args []string, settings map[string]string) *process.Program {
	s.started++
	p := &process.Program{Name: name, Path: path, Args: args, Log: filepath.Join(s.dir, fmt.Sprintf("%s-%d.log", name, s.started))}
	var err error
	p.Ops, err = process.FreeAddr()
	require.NoError(s.t, err)
	p.Env = append(process.Settings(settings), "TAGSTREAM_OPS_LISTEN="+p.Ops, "TAGSTREAM_LOG_LEVEL=info")
	s.t.Cleanup(func() {
		if s.t.Failed() {
			p.Stacks()
		}
		p.End()
	})
	return p
}

func (s *site) newIngest() *process.Program {
	settings := map[string]string{
		"JETSTREAM_HOSTS": "http://" + s.toHost.Addr(), "JETSTREAM_START": "archive", "NATS_URL": s.natsURL(s.ingestNATS),
	}
	if s.other != nil {
		settings["JETSTREAM_HOSTS"] += ",http://" + s.toOther.Addr()
	}
	if s.cluster != nil {
		settings["STREAM_REPLICAS"] = strconv.Itoa(len(s.cluster))
	}
	return s.program("ingest", s.bin.ingest, nil, settings)
}

func (s *site) newIndexer() *process.Program {
	return s.program("indexer", s.bin.indexer, nil, map[string]string{
		"NATS_URL": s.natsURL(s.indexerNATS), "DATABASE_URL": s.databaseURL(indexerRole, s.indexerPG),
		"DENY_FILE": s.deny,
	})
}

// ownerTool is one of the indexer's commands that need the owner's role.
func (s *site) ownerTool(command string) *process.Program {
	return s.tool(s.natsURL(s.opsNATS), s.databaseURL(ownerRole, s.ownerPG), command)
}

// tool is one of the indexer's commands.
func (s *site) tool(nats, database string, command ...string) *process.Program {
	return s.program("indexer "+command[0], s.bin.indexer, command, map[string]string{"NATS_URL": nats, "DATABASE_URL": database})
}

// startPrograms starts ingest, the indexer and the api.
func (s *site) startPrograms() {
	s.keys = filepath.Join(s.dir, "cursor.keys")
	require.NoError(s.t, keyset.CreateKeys(s.keys))
	listen, err := process.FreeAddr()
	require.NoError(s.t, err)
	s.apiURL = "http://" + listen
	s.ingest, s.indexer = s.newIngest(), s.newIndexer()
	s.api = s.program("api", s.bin.api, nil, map[string]string{
		"DATABASE_URL": s.databaseURL(apiRole, s.apiPG), "CURSOR_KEYS_FILE": s.keys, "API_LISTEN": listen,
	})
	for _, p := range s.programs() {
		require.NoError(s.t, p.Start())
	}
}

// programs returns our programs that are running.
func (s *site) programs() []*process.Program {
	all := []*process.Program{s.ingest, s.indexer, s.api}
	if s.standby != nil {
		all = append(all, s.standby)
	}
	return all
}

// exec runs a statement as the superuser. It waits while the database is unavailable.
func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	poll.NoError(s.t, settleLimit, func() error {
		_, err := s.super.Exec(s.t.Context(), sql, args...)
		return err
	})
}

// scan reads one row as the superuser.
func (s *site) scan(sql string, into ...any) {
	s.t.Helper()
	err := s.super.QueryRow(s.t.Context(), sql).Scan(into...)
	require.NoError(s.t, err, sql)
}
