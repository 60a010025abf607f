package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	natsReady = 30 * time.Second // recovery of a large stream reads its index
	// natsMaxPayload has room for the network's largest records as JSON.
	natsMaxPayload = 4 << 20
	// natsLeast is less than a message and its block need.
	natsLeast = 1 << 20
)

// embedded is the NATS server in this process.
type embedded struct {
	*server.Server
	dir, secret string
	logger      *slog.Logger
	// full reports that a write failed for lack of room. The streams then accept none until they
	// are reopened, even if there is room again.
	full *atomic.Bool
	// streams is the configuration with which they were opened.
	streams server.JetStreamConfig
}

// openNATS starts a NATS server in this process. It listens on the loopback for operators' commands
// (Servers), and accepts only clients that know the secret of this run.
func openNATS(dir, secret string, logger *slog.Logger) (*embedded, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "tagstream",
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		Username:   natsUser,
		Password:   secret,
		JetStream:  true,
		StoreDir:   filepath.Join(dir, "nats"),
		// Without it, acknowledged messages are only in memory for up to two minutes: see
		// docs/decisions/0002-fenced-batches.md.
		SyncAlways: true,
		MaxPayload: natsMaxPayload,
		NoSigs:     true,
	})
	if err != nil {
		return nil, fmt.Errorf("set up the embedded NATS server: %w", err)
	}
	log := natsLogger{log: logger.With("service", "nats"), fatal: &atomic.Bool{}, recovers: &atomic.Bool{}, full: &atomic.Bool{}}
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	// A server that gave up never becomes ready.
	if log.fatal.Load() || !s.ReadyForConnections(natsReady) {
		s.Shutdown()
		return nil, errors.New("the embedded NATS server did not become ready; its log says why")
	}
	e := &embedded{Server: s, dir: dir, secret: secret, logger: logger, full: log.full, streams: *s.JetStreamConfig()}
	e.streams.StoreDir = filepath.Join(dir, "nats") // it tells the folder inside
	return e, nil
}

// watchRoom reopens the streams once there is room after a write failed for lack of it, until ctx
// ends. changed receives the reason why they wait, and nil when they no longer do.
func (e *embedded) watchRoom(ctx context.Context, every time.Duration, changed func(error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		has, err := freeBytes(e.dir)
		if err == nil && has < natsLeast {
			e.full.Store(true)
		}
		if !e.full.Load() {
			continue
		}
		if err == nil && has < natsAgain {
			err = fmt.Errorf("the disk of the data directory is full: the stream accepts nothing until %d bytes are available; %d are", natsAgain, has)
		}
		if err == nil {
			err = e.reopen()
		}
		changed(err)
	}
}

func (e *embedded) reopen() error {
	e.full.Store(false)
	err := e.ShutdownJetStream()
	if err == nil {
		streams := e.streams
		err = e.EnableJetStream(&streams)
	}
	if err != nil {
		e.full.Store(true) // the next look tries again
		return fmt.Errorf("open the streams again: %w", err)
	}
	e.logger.Info("the disk has room again; the stream accepts writes", "service", "nats")
	return nil
}

// natsUser is the user of the embedded server.
const natsUser = "tagstream"

func (e *embedded) connect(program string, changed func(error)) (*nats.Conn, error) {
	opts := append(service.NATSOptions(e.logger, changed), nats.Name("tagstream "+program), nats.InProcessServer(e), nats.UserInfo(natsUser, e.secret))
	nc, err := nats.Connect("", opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	return nc, nil
}

// freeLease takes ingest's lease from the previous run. This process has the lock of the data
// directory, so that run is dead and need not be waited for.
func freeLease(ctx context.Context, e *embedded) error {
	nc, err := e.connect("start", func(error) {})
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	return stream.FreeLease(ctx, js)
}

func closeNATS(s *embedded) {
	s.Shutdown()
	s.WaitForShutdown()
}

// natsLogger passes on those log lines of the embedded server that operators should see.
type natsLogger struct {
	log *slog.Logger
	// fatal reports that the server cannot continue, recovers that it was not stopped cleanly, full
	// that a write failed for lack of room.
	fatal, recovers, full *atomic.Bool
}

func (l natsLogger) say(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l natsLogger) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }

// indexErrored is part of the server's warnings that an index of its files is missing or old, as
// after a crash: it then reads the files themselves.
const indexErrored = "from index errored"

// Warnings are about recovery after a crash, which is expected here.
func (l natsLogger) Warnf(format string, v ...any) {
	switch text := fmt.Sprintf(format, v...); {
	case strings.HasPrefix(text, "Plaintext passwords detected"): // the secret of this run, made by ourselves
		l.say(slog.LevelDebug, format, v)
		return
	case !strings.Contains(text, indexErrored):
		l.say(slog.LevelInfo, format, v)
		return
	}
	if !l.recovers.Swap(true) {
		l.log.Info("the stream was not closed cleanly; checking all of it, nothing is lost")
	}
	l.say(slog.LevelDebug, format, v)
}

func (l natsLogger) Errorf(format string, v ...any) {
	// Only the text says so: the server does not pass on the error.
	if strings.Contains(fmt.Sprintf(format, v...), syscall.ENOSPC.Error()) {
		l.full.Store(true)
	}
	l.say(slog.LevelError, format, v)
}

func (l natsLogger) Debugf(string, ...any) {}
func (l natsLogger) Tracef(string, ...any) {}

func (l natsLogger) Fatalf(format string, v ...any) {
	l.fatal.Store(true)
	l.say(slog.LevelError, format, v)
}
