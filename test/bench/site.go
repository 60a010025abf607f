package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/pgserver"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
	"github.com/tagstream/tagstream/test/site"
)

const (
	readyLimit = 60 * time.Second
	readyPoll  = 20 * time.Millisecond
)

// installation is one with a history of its own upstream: a Jetstream server, NATS and Postgres from the start, and
// the services as they are started. Its owner calls close, also after a failure.
type installation struct {
	dir, bin string
	posts    int // of the history

	network  *simnet.Network
	upstream *simnet.Jetstream
	nats     *server.Server
	conn     *nats.Conn
	js       jetstream.JetStream
	pg       *site.Postgres
	index    *query.Reader

	ingest, indexer, api *process.Program
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
func openSite(ctx context.Context, t tools, dir string, seed uint64, posts int) (s *installation, err error) {
	s = &installation{dir: dir, bin: t.bin, posts: posts}
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

func (s *installation) openPostgres(ctx context.Context, binaries pgserver.Binaries) (err error) {
	if s.pg, err = site.StartPostgres(ctx, binaries, s.dir, "", nil); err != nil {
		return err
	}
	s.index, err = query.Open(ctx, store.Options{URL: s.pg.URL(site.APIRole), Program: "bench", MaxConns: 1})
	return err
}

func (s *installation) openNATS() (err error) {
	if s.nats, err = site.StartNATS(s.natsDir()); err != nil {
		return err
	}
	if s.conn, err = nats.Connect(s.nats.ClientURL()); err != nil {
		return fmt.Errorf("connect to the NATS server: %w", err)
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	return nil
}

func (s *installation) natsDir() string { return filepath.Join(s.dir, "nats") }

// close stops everything. It may be called on a site that is open in part.
func (s *installation) close(ctx context.Context) error {
	errs := []error{s.api.Terminate(), s.indexer.Terminate(), s.ingest.Terminate()}
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
		errs = append(errs, s.pg.Stop(ctx))
	}
	return errors.Join(errs...)
}

// run starts a service, which listens for its operator.
func (s *installation) run(name string, args []string, settings map[string]string) (*process.Program, error) {
	ops, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	settings["LOG_LEVEL"], settings["OPS_LISTEN"] = "info", ops
	log := filepath.Join(s.dir, strings.Join(append([]string{name}, args...), "-")+".log")
	p := &process.Program{Name: name, Path: filepath.Join(s.bin, name), Dir: s.dir, Args: args, Env: process.Settings(settings), Log: log, Ops: ops}
	return p, p.Start()
}

// until calls done every so often until it returns true or an error, or ctx ends.
func until(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// startIngest starts ingest on the whole history and returns at once, so that the replay can be watched.
func (s *installation) startIngest() (err error) {
	s.ingest, err = s.run(service.Ingest, nil, map[string]string{
		"JETSTREAM_HOSTS": s.upstream.URL(), "JETSTREAM_START": "archive", "NATS_URL": s.nats.ClientURL(),
	})
	return err
}

// startIndexer starts the indexer and returns at once.
func (s *installation) startIndexer() (err error) {
	s.indexer, err = s.run(service.Indexer, nil, map[string]string{
		"NATS_URL": s.nats.ClientURL(), "DATABASE_URL": s.pg.URL(site.IndexerRole),
	})
	return err
}

// startAPI starts the api and returns when it is ready.
func (s *installation) startAPI(ctx context.Context) error {
	keys := filepath.Join(s.dir, "cursor-keys")
	if err := keyset.CreateKeys(keys); err != nil {
		return err
	}
	listen, err := process.FreeAddr()
	if err != nil {
		return err
	}
	s.apiURL = "http://" + listen
	s.api, err = s.run(service.API, nil, map[string]string{
		"DATABASE_URL": s.pg.URL(site.APIRole), "CURSOR_KEYS_FILE": keys, "API_LISTEN": listen,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	err = until(ctx, readyPoll, func() (bool, error) {
		ready, _ := s.api.Ready()
		return ready, s.api.Alive()
	})
	if err != nil {
		return fmt.Errorf("wait until the api is ready: %w: %s", err, s.api.Tail())
	}
	return nil
}
