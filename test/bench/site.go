package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/pgserver"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/test/simnet"
)

const (
	ownerRole   = "tagstream_owner"
	indexerRole = "tagstream_indexer"
	apiRole     = "tagstream_api"

	natsReady = 30 * time.Second
	// natsMaxPayload is what a deployment gives its server.
	natsMaxPayload = 4 << 20
	pgStop         = 30 * time.Second
)

// site is one installation with a history of its own upstream: a Jetstream server, NATS and Postgres from the start, and
// the services as they are started. Its owner calls close, also after a failure.
type site struct {
	dir, bin string
	posts    int // of the history

	network  *simnet.Network
	upstream *simnet.Jetstream
	nats     *server.Server
	conn     *nats.Conn
	js       jetstream.JetStream
	pg       *pgserver.Server
	index    *query.Reader

	ingest, indexer, api *process
	apiURL               string
}

// tools are what all sites of a run share.
type tools struct {
	bin       string // folder of the services' binaries
	jetstream string // the Jetstream server's binary
	postgres  pgserver.Binaries
	author    *author
}

// openSite makes an installation in dir whose upstream has a history of so many posts. It starts no service.
func openSite(ctx context.Context, t tools, dir string, seed uint64, posts int) (s *site, err error) {
	s = &site{dir: dir, bin: t.bin, posts: posts}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return s, fmt.Errorf("make the site's folder: %w", err)
	}
	if err := s.openPostgres(ctx, t.postgres); err != nil {
		return s, err
	}
	if err := s.openNATS(); err != nil {
		return s, err
	}
	if s.network, err = newHistory(ctx, seed, posts, t.author); err != nil {
		return s, err
	}
	s.upstream, err = s.network.StartJetstream(ctx, simnet.JetstreamConfig{Binary: t.jetstream, DataDir: filepath.Join(dir, "jetstream")})
	if err != nil {
		return s, fmt.Errorf("start the Jetstream server: %w", err)
	}
	return s, nil
}

func (s *site) openPostgres(ctx context.Context, binaries pgserver.Binaries) error {
	quiet := slog.New(slog.DiscardHandler)
	var err error
	s.pg, err = pgserver.Start(ctx, pgserver.Config{
		Dir: filepath.Join(s.dir, "postgres"), Binaries: binaries, Database: "tagstream", Owner: ownerRole,
		Roles: []string{ownerRole, indexerRole, apiRole}, TCPPort: pgserver.AnyPort, Logger: quiet,
	})
	if err != nil {
		return err
	}
	if err := store.CreateRoles(ctx, store.Options{URL: s.pg.TCPURL(pgserver.Superuser)}, indexerRole, apiRole); err != nil {
		return err
	}
	if err := store.Migrate(ctx, store.Options{URL: s.pg.TCPURL(ownerRole)}, quiet); err != nil {
		return err
	}
	s.index, err = query.Open(ctx, store.Options{URL: s.pg.TCPURL(apiRole), Program: "bench", MaxConns: 1})
	return err
}

func (s *site) openNATS() error {
	var err error
	s.nats, err = server.NewServer(&server.Options{
		ServerName: "bench", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: s.natsDir(),
		SyncAlways: true, MaxPayload: natsMaxPayload, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return fmt.Errorf("make the NATS server: %w", err)
	}
	s.nats.Start()
	if !s.nats.ReadyForConnections(natsReady) {
		return fmt.Errorf("the NATS server is not ready within %s", natsReady)
	}
	if s.conn, err = nats.Connect(s.nats.ClientURL()); err != nil {
		return fmt.Errorf("connect to the NATS server: %w", err)
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	return nil
}

func (s *site) natsDir() string { return filepath.Join(s.dir, "nats") }

// close stops everything. It may be called on a site that is open in part.
func (s *site) close(ctx context.Context) error {
	errs := []error{s.api.stop(), s.indexer.stop(), s.ingest.stop()}
	if s.upstream != nil {
		errs = append(errs, s.upstream.Stop())
		s.upstream.Relay().Close()
	}
	if s.index != nil {
		s.index.Close()
	}
	if s.conn != nil {
		s.conn.Close()
	}
	if s.nats != nil {
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
	}
	if s.pg != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), pgStop)
		defer cancel()
		errs = append(errs, s.pg.Stop(stop))
	}
	return errors.Join(errs...)
}

// run starts a service. Where ops is not empty, run returns once that address says that the service is ready.
func (s *site) run(ctx context.Context, name string, args []string, ops string, settings map[string]string) (*process, error) {
	settings["LOG_LEVEL"] = "info"
	if ops != "" {
		settings["OPS_LISTEN"] = ops
	}
	p, err := start(name, filepath.Join(s.bin, name), s.dir, args, settings)
	if err != nil || ops == "" {
		return p, err
	}
	return p, p.awaitReady(ctx, ops)
}

// startIngest starts ingest on the whole history and returns at once, so that the replay can be watched.
func (s *site) startIngest(ctx context.Context) error {
	ops, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	s.ingest, err = s.run(ctx, service.Ingest, nil, "", map[string]string{
		"JETSTREAM_HOSTS": s.upstream.URL(), "JETSTREAM_START": "archive", "NATS_URL": s.nats.ClientURL(), "OPS_LISTEN": ops,
	})
	return err
}

// startIndexer starts the indexer and returns at once.
func (s *site) startIndexer(ctx context.Context) error {
	ops, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	s.indexer, err = s.run(ctx, service.Indexer, nil, "", map[string]string{
		"NATS_URL": s.nats.ClientURL(), "DATABASE_URL": s.pg.TCPURL(indexerRole), "OPS_LISTEN": ops,
	})
	return err
}

// startAPI starts the api and returns when it is ready.
func (s *site) startAPI(ctx context.Context) error {
	keys := filepath.Join(s.dir, "cursor-keys")
	if err := keyset.CreateKeys(keys); err != nil {
		return err
	}
	listen, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	ops, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	s.apiURL = "http://" + listen
	s.api, err = s.run(ctx, service.API, nil, ops, map[string]string{
		"DATABASE_URL": s.pg.TCPURL(apiRole), "CURSOR_KEYS_FILE": keys, "API_LISTEN": listen,
	})
	return err
}
