// Package standalone is the whole pipeline in one process: an embedded NATS server, a private
// Postgres, and ingest, indexer and api. They are the same code as the separate programs, and use
// the same separate database roles.
//
// It survives kill -9: the stream and the database recover automatically, a Postgres that outlived
// the process is ended before the next one starts, and a second instance on the same data directory
// is refused.
package standalone

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tagstream/tagstream/pkg/dirlock"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/tracing"
	"github.com/tagstream/tagstream/services/api"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/ingest"
)

const (
	postgresStop = 30 * time.Second
	startTimeout = 5 * time.Minute // the recovery of Postgres after a crash is in it

	// privateHolder holds the indexer's lease in the private Postgres. All runs have the same name,
	// since only one at a time can have the data directory, so the next run takes over the lease of
	// a killed one.
	privateHolder = "the all-in-one program"

	// roomEvery is how often a full disk is checked again.
	roomEvery = 2 * time.Second

	componentNATS     = "nats"
	componentPostgres = "postgres"
)

// Run runs everything until ctx ends, and stops it in the direction of the data: ingest, indexer,
// api, then their servers. ready, if not nil, is called with the API's URL once everything is up.
func Run(ctx context.Context, cfg Config, logger *slog.Logger, ready func(apiURL string)) (err error) {
	health := obs.NewHealth(logger, componentNATS, componentPostgres, ingest.ComponentStream, ingest.ComponentFirehose,
		indexer.HealthDatabase, indexer.HealthStream, api.HealthDatabase)
	defer context.AfterFunc(ctx, health.Stop)()
	p := &pipeline{cfg: cfg, logger: logger, health: health, registry: obs.NewRegistry(health, service.Version()), ops: http.NewServeMux()}
	if cfg.ConnectNATS != nil {
		nc, err := cfg.ConnectNATS(logger, p.natsChanged)
		if err != nil {
			return err
		}
		defer nc.Close()
		p.connect = func(string) (*nats.Conn, error) { return nc, nil }
	}
	if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil { //nolint:gosec // the parts inside are private
		return fmt.Errorf("make the data directory (TAGSTREAM_DATA_DIR): %w", err)
	}
	lock, err := dirlock.Acquire(cfg.DataDir)
	if err != nil {
		return fmt.Errorf("take the data directory (TAGSTREAM_DATA_DIR): %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := checkRoom(cfg, freeBytes); err != nil {
		return err
	}

	// Listen first: a port in use is the most common reason for a failed start.
	apiListener, err := net.Listen("tcp", cfg.APIListen)
	if err != nil {
		return fmt.Errorf("listen for the API (TAGSTREAM_API_LISTEN): %w", err)
	}
	defer apiListener.Close()
	opsListener, err := net.Listen("tcp", cfg.OpsListen)
	if err != nil {
		return fmt.Errorf("listen for operators (TAGSTREAM_OPS_LISTEN): %w", err)
	}
	defer opsListener.Close()

	detached := context.WithoutCancel(ctx)
	ops := begin(detached, "operators' listener", func(ctx context.Context) error {
		return obs.RunOps(ctx, opsListener, health, p.registry, p.ops)
	})
	defer func() { err = errors.Join(err, ops.stop()) }()

	p.apiListener = apiListener
	if p.traces, err = tracing.Start(detached, cfg.Tracing, logger, p.registry); err != nil {
		return err
	}
	defer p.traces.Stop()
	start, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	closeStores, err := p.openStores(start)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStores()) }()
	return p.run(ctx, ready)
}

// pipeline holds what the parts share.
type pipeline struct {
	cfg         Config
	logger      *slog.Logger
	health      *obs.Health
	registry    *prometheus.Registry
	apiListener net.Listener
	traces      *tracing.Tracing
	// ops has the services' handlers for operators; each service adds its own.
	ops *http.ServeMux

	dbs  databases
	keys []keyset.Key
	// connect returns a connection to the stream for a service.
	connect  func(program string) (*nats.Conn, error)
	postgres <-chan struct{} // closed when the private Postgres ends unexpectedly
	pgErr    func() error
}

func (p *pipeline) natsChanged(err error) { p.health.Set(componentNATS, err) }

// openStores starts or finds the stream and the database, and returns a function that closes them.
func (p *pipeline) openStores(ctx context.Context) (_ func() error, err error) {
	var closers []func() error
	closeAll := func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	var own servers
	publish := func() error { // first to be closed: what it names goes next
		closers = append(closers, func() error { return own.remove(p.cfg.DataDir) })
		return own.write(p.cfg.DataDir)
	}
	if p.keys, err = cursorKeys(p.cfg); err != nil {
		return nil, err
	}
	if p.cfg.Database.URL != "" {
		p.dbs = databases{owner: p.cfg.Database, indexer: p.cfg.Database, api: p.cfg.Database}
		p.pgErr = func() error { return nil }
	} else {
		pg, dbs, err := openPostgres(ctx, p.cfg.DataDir, p.logger)
		if err != nil {
			return nil, err
		}
		closers = append(closers, func() error {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), postgresStop)
			defer cancel()
			return pg.Stop(stop)
		})
		p.dbs, p.postgres, p.pgErr = dbs, pg.Done(), pg.Err
		own.Owner, own.Indexer, own.API = dbs.owner.URL, dbs.indexer.URL, dbs.api.URL
	}
	p.health.Set(componentPostgres, nil)
	if p.connect != nil {
		return closeAll, publish()
	}
	secret := rand.Text()
	ns, err := openNATS(p.cfg.DataDir, secret, p.logger)
	if err != nil {
		return nil, err
	}
	watching := begin(context.WithoutCancel(ctx), "the watch of the disk", func(ctx context.Context) error {
		ns.watchRoom(ctx, roomEvery, p.natsChanged)
		return nil
	})
	closers = append(closers, func() error { err := watching.stop(); closeNATS(ns); return err })
	if err := freeLease(ctx, ns); err != nil {
		return nil, err
	}
	p.connect = func(program string) (*nats.Conn, error) {
		return ns.connect(program, p.natsChanged)
	}
	own.NATS = (&url.URL{Scheme: "nats", User: url.UserPassword(natsUser, secret), Host: ns.Addr().String()}).String()
	return closeAll, publish()
}

// cursorKeys returns the keys that sign page tokens; their file in the data directory is created
// the first time.
func cursorKeys(cfg Config) ([]keyset.Key, error) {
	if len(cfg.CursorKeys) > 0 {
		return cfg.CursorKeys, nil
	}
	path := filepath.Join(cfg.DataDir, "cursor.keys")
	if err := keyset.CreateKeys(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the cursor keys: %w", err)
	}
	return keyset.LoadKeys(path)
}

// run runs the three services until ctx ends or one of them fails.
func (p *pipeline) run(ctx context.Context, ready func(string)) error {
	ingestConn, err := p.connect("ingest")
	if err != nil {
		return err
	}
	defer ingestConn.Close()
	indexerConn, err := p.connect("indexer")
	if err != nil {
		return err
	}
	defer indexerConn.Close()

	in, err := ingest.New(p.cfg.Ingest, ingest.Deps{
		NATS: ingestConn, Domain: p.cfg.NATSDomain, Logger: p.logger, Registry: p.registry, Ready: p.health.Set, Tracer: p.traces.Tracer("ingest"),
	})
	if err != nil {
		return err
	}
	in.Handle(p.ops)
	id := nuid.Next()
	if p.postgres != nil {
		id = privateHolder
	}
	ix, err := indexer.New(indexer.Config{
		Database: p.dbs.indexer, ChangesAge: p.cfg.ChangesAge, EraseWithin: p.cfg.EraseWithin, ShowOptedOut: p.cfg.ShowOptedOut, DenyFile: p.cfg.DenyFile,
	}, indexer.Deps{
		NATS: indexerConn, Domain: p.cfg.NATSDomain, Logger: p.logger, Registry: p.registry, Health: p.health, ID: id, Tracer: p.traces.Tracer("indexer"),
	})
	if err != nil {
		return err
	}
	ap, err := api.New(api.Config{
		Database: p.dbs.api, CursorKeys: p.keys, PublicURL: p.cfg.PublicURL, FeedsFile: p.cfg.FeedsFile, Media: p.cfg.Media, MaxFollowers: p.cfg.MaxFollowers,
	}, api.Deps{
		Logger: p.logger, Registry: p.registry, Health: p.health, Listener: p.apiListener, Tracer: p.traces.Tracer("api"),
	})
	if err != nil {
		return err
	}
	p.ops.Handle("/v1/admin/", ap.Ops())

	// Each part has its own context, so that they can be stopped one after another.
	detached := context.WithoutCancel(ctx)
	apiPart := begin(detached, "api", ap.Run)
	indexerPart := begin(detached, "indexer", ix.Run)
	ingestPart := begin(detached, "ingest", in.Run)
	if ready != nil {
		ready("http://" + p.apiListener.Addr().String())
	}

	ingestDone := ingestPart.done
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ingestDone:
			if ingestPart.err != nil {
				err = ingestPart.stop()
			} else {
				// It stopped after StopAfter; what it read stays available.
				ingestDone = nil
				continue
			}
		case <-indexerPart.done:
		case <-apiPart.done:
		case <-p.postgres:
			p.logger.Error("the private Postgres ended", "err", p.pgErr())
			err = fmt.Errorf("the private Postgres ended; the next start recovers it, %s says why",
				filepath.Join(p.cfg.DataDir, "postgres", "postgres.log"))
		}
		break
	}
	p.logger.Info("stopping")
	if stopErr := errors.Join(ingestPart.stop(), indexerPart.stop(), apiPart.stop()); stopErr != nil {
		return stopErr
	}
	return err
}

// part is something that runs alongside the rest.
type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error // set before done is closed
}

func begin(ctx context.Context, name string, run func(context.Context) error) *part {
	ctx, cancel := context.WithCancel(ctx)
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer cancel()
		p.err = run(ctx)
	}()
	return p
}

// stop ends the part and returns its error. It may be called more than once.
func (p *part) stop() error {
	p.cancel()
	<-p.done
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.name, p.err)
	}
	return nil
}
