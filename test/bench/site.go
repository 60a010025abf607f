package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	answerPoll = 2 * time.Millisecond
	// maxPayload is the setting in deploy/nats/server.conf.
	maxPayload = "1MB"
	// self is this package's command, which includes the peers.
	self = "github.com/tagstream/tagstream/test/bench/cmd/bench"
)

// installation has the servers, and the services once they are started. Its owner must call close,
// also after a failure.
type installation struct {
	dir, bin string
	archive  archive

	network  *simnet.Network
	upstream *simnet.Jetstream
	nats     *process.Program
	natsURL  string
	conn     *nats.Conn
	js       jetstream.JetStream
	pg       *site.Postgres
	binaries pgserver.Binaries
	index    *query.Reader

	ingest, indexer, api, handler *process.Program
	apiURL, handlerURL            string
	feeds                         string // the feeds file of the api, "" for none
}

// openSite builds everything and starts the servers, with an archive. It starts no services.
func openSite(ctx context.Context, cfg Config, dir string, a *author) (s *installation, err error) {
	s = &installation{dir: dir, bin: filepath.Join(dir, "bin")}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	if err := process.Build(ctx, s.bin, process.Ingest, process.Indexer, process.API, process.NATS, self); err != nil {
		return s, err
	}
	binary, err := simnet.BuildJetstream(ctx, "")
	if err != nil {
		return s, err
	}
	if s.binaries, err = site.FindPostgres(ctx, dir); err != nil {
		return s, err
	}
	if s.pg, err = site.StartPostgres(ctx, s.binaries, dir, "", nil); err != nil {
		return s, err
	}
	if s.index, err = query.Open(ctx, store.Options{URL: s.pg.URL(site.APIRole), Program: "bench", MaxConns: 1}); err != nil {
		return s, err
	}
	if err := s.startNATS(ctx); err != nil {
		return s, err
	}
	if s.network, err = simnet.New(simnet.Config{Seed: cfg.Seed, Accounts: accounts, History: keptFrames, LogLimit: -1}); err != nil {
		return s, fmt.Errorf("make the network: %w", err)
	}
	data := filepath.Join(dir, "jetstream")
	if s.upstream, err = s.network.StartJetstream(ctx, simnet.JetstreamConfig{Binary: binary, DataDir: data}); err != nil {
		return s, fmt.Errorf("start the Jetstream server: %w", err)
	}
	if err := s.upstream.Stop(); err != nil {
		return s, err
	}
	if s.archive, err = writeArchive(ctx, a, data, cfg.Events); err != nil {
		return s, err
	}
	if err := s.upstream.Restart(ctx); err != nil {
		return s, fmt.Errorf("start the Jetstream server again: %w", err)
	}
	return s, s.upstream.WaitAttached(ctx)
}

func (s *installation) startNATS(ctx context.Context) error {
	addr, err := process.FreeAddr()
	if err != nil {
		return err
	}
	conf := filepath.Join(s.dir, "nats.conf")
	text := fmt.Sprintf("listen: %q\nmax_payload: %s\njetstream { store_dir: %q, sync_interval: always }\n", addr, maxPayload, s.natsDir())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the NATS server's configuration: %w", err)
	}
	s.natsURL = "nats://" + addr
	s.nats = &process.Program{Name: "nats", Path: filepath.Join(s.bin, "nats-server"), Args: []string{"-c", conf}, Log: filepath.Join(s.dir, "nats.log")}
	if err := s.nats.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	if err := until(ctx, readyPoll, func() (bool, error) {
		s.conn, err = nats.Connect(s.natsURL)
		return err == nil, s.nats.Alive()
	}); err != nil {
		return fmt.Errorf("wait for the NATS server: %w: %s", err, s.nats.Tail())
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	return nil
}

func (s *installation) natsDir() string { return filepath.Join(s.dir, "nats") }

// emptyStreams deletes all streams in NATS.
func (s *installation) emptyStreams(ctx context.Context) error {
	names := s.js.StreamNames(ctx)
	for name := range names.Name() {
		if err := s.js.DeleteStream(ctx, name); err != nil {
			return fmt.Errorf("delete stream %s: %w", name, err)
		}
	}
	return names.Err()
}

// emptyIndex recreates the index, empty.
func (s *installation) emptyIndex(ctx context.Context) error {
	if err := s.pg.Exec(ctx, "DROP SCHEMA IF EXISTS "+store.Live+" CASCADE; CHECKPOINT"); err != nil {
		return err
	}
	return store.Migrate(ctx, store.Options{URL: s.pg.URL(site.OwnerRole)}, slog.New(slog.DiscardHandler))
}

// close stops everything. The site may be partly open.
func (s *installation) close(ctx context.Context) error {
	errs := []error{s.handler.Terminate(), s.api.Terminate(), s.indexer.Terminate(), s.ingest.Terminate()}
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
	errs = append(errs, s.nats.Terminate())
	if s.pg != nil {
		errs = append(errs, s.pg.Stop(ctx))
	}
	return errors.Join(errs...)
}

// run starts a service with an ops listener.
func (s *installation) run(name string, args []string, settings map[string]string) (*process.Program, error) {
	ops, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	settings["LOG_LEVEL"], settings["LOG_FORMAT"], settings["OPS_LISTEN"] = "info", "json", ops
	log := filepath.Join(s.dir, strings.Join(append([]string{name}, args...), "-")+".log")
	p := &process.Program{Name: name, Path: filepath.Join(s.bin, name), Dir: s.dir, Args: args, Env: process.Settings(settings), Log: log, Ops: ops}
	return p, p.Start()
}

// peer starts a part of this package as a separate process.
func (s *installation) peer(args ...string) (*process.Program, error) {
	p := &process.Program{Name: args[0], Path: filepath.Join(s.bin, "bench"), Dir: s.dir, Args: append([]string{"-peer"}, args...), Log: filepath.Join(s.dir, args[0]+".log")}
	if err := os.Remove(p.Log); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return p, p.Start()
}

// until calls done repeatedly until it returns true or an error, or ctx ends.
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

// startIngest starts ingest on the whole archive and returns at once.
func (s *installation) startIngest() (err error) {
	s.ingest, err = s.run(service.Ingest, nil, map[string]string{
		"JETSTREAM_HOSTS": s.upstream.URL(), "JETSTREAM_START": "archive", "NATS_URL": s.natsURL,
	})
	return err
}

// startIndexer starts the indexer and returns at once.
func (s *installation) startIndexer() (err error) {
	s.indexer, err = s.run(service.Indexer, nil, map[string]string{"NATS_URL": s.natsURL, "DATABASE_URL": s.pg.URL(site.IndexerRole)})
	return err
}

// runAPI starts an api on a database, with the feeds file if there is one, and returns at once.
func (s *installation) runAPI(pg *site.Postgres) (p *process.Program, url string, err error) {
	keys := filepath.Join(s.dir, "cursor-keys")
	if err := keyset.CreateKeys(keys); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, "", err
	}
	listen, err := process.FreeAddr()
	if err != nil {
		return nil, "", err
	}
	p, err = s.run(service.API, nil, map[string]string{"DATABASE_URL": pg.URL(site.APIRole), "CURSOR_KEYS_FILE": keys, "API_LISTEN": listen, "FEEDS_FILE": s.feeds})
	return p, "http://" + listen, err
}

// runHandler starts the minimal handler and returns at once.
func (s *installation) runHandler() (p *process.Program, url string, err error) {
	listen, err := process.FreeAddr()
	if err != nil {
		return nil, "", err
	}
	p, err = s.peer(peerHandler, s.pg.URL(site.APIRole), listen)
	return p, "http://" + listen, err
}

// awaitAnswer returns when a program's url is answered with 200.
func awaitAnswer(ctx context.Context, p *process.Program, url string) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	err := until(ctx, answerPoll, func() (bool, error) {
		status, _ := process.Fetch(url)
		return status == http.StatusOK, p.Alive()
	})
	if err != nil {
		return fmt.Errorf("wait until %s answers %s: %w: %s", p.Name, url, err, p.Tail())
	}
	return nil
}

// startAPI starts the api and its peer, and returns when both are ready.
func (s *installation) startAPI(ctx context.Context) error {
	var err error
	if s.api, s.apiURL, err = s.runAPI(s.pg); err != nil {
		return err
	}
	if s.handler, s.handlerURL, err = s.runHandler(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	err = until(ctx, readyPoll, func() (bool, error) {
		ready, _ := s.api.Ready()
		status, _ := process.Fetch(s.handlerURL)
		return ready && status == http.StatusOK, errors.Join(s.api.Alive(), s.handler.Alive())
	})
	if err != nil {
		return fmt.Errorf("wait until the api is ready: %w: %s", err, s.api.Tail())
	}
	return nil
}
