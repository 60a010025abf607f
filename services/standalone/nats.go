package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	natsReady = 30 * time.Second // recovery of a large stream reads its index
	// natsMaxPayload is room for the largest records of the network as JSON.
	natsMaxPayload = 4 << 20
)

// openNATS starts a NATS server inside this process. It listens on the loopback, for
// operators' commands (Servers), and takes only who knows the secret of this run.
func openNATS(dir, secret string, logger *slog.Logger) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "tagstream",
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		Username:   natsUser,
		Password:   secret,
		JetStream:  true,
		StoreDir:   filepath.Join(dir, "nats"),
		// Without it acknowledged messages live in memory for up to two
		// minutes: see docs/decisions/0002-fenced-batches.md.
		SyncAlways: true,
		MaxPayload: natsMaxPayload,
		NoSigs:     true,
	})
	if err != nil {
		return nil, fmt.Errorf("set up the embedded NATS server: %w", err)
	}
	log := natsLogger{log: logger.With("service", "nats"), fatal: &atomic.Bool{}, recovers: &atomic.Bool{}}
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	// One that gave up is never ready.
	if log.fatal.Load() || !s.ReadyForConnections(natsReady) {
		s.Shutdown()
		return nil, errors.New("the embedded NATS server did not become ready; its log says why")
	}
	return s, nil
}

// natsUser is who may use the embedded server.
const natsUser = "tagstream"

func connectEmbedded(s *server.Server, secret, program string, logger *slog.Logger, changed func(error)) (*nats.Conn, error) {
	opts := append(service.NATSOptions(logger, changed), nats.Name("tagstream "+program), nats.InProcessServer(s), nats.UserInfo(natsUser, secret))
	nc, err := nats.Connect("", opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	return nc, nil
}

// freeLease takes ingest's lease from the run before. The lock of the data directory
// says that it is dead, so there is nobody to wait for.
func freeLease(ctx context.Context, s *server.Server, secret string, logger *slog.Logger) error {
	nc, err := connectEmbedded(s, secret, "start", logger, func(error) {})
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

func closeNATS(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// natsLogger passes on what an operator should see of the embedded server.
type natsLogger struct {
	log *slog.Logger
	// fatal is whether the server said that it cannot go on, recovers whether it had not
	// been stopped cleanly.
	fatal, recovers *atomic.Bool
}

func (l natsLogger) say(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l natsLogger) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }

// indexErrored is in the server's warnings that an index of its files is missing or old,
// as it is after a crash: then it reads the files themselves.
const indexErrored = "from index errored"

// Warnings are about its own recovery after a crash, which is no trouble here.
func (l natsLogger) Warnf(format string, v ...any) {
	if !strings.Contains(fmt.Sprintf(format, v...), indexErrored) {
		l.say(slog.LevelInfo, format, v)
		return
	}
	if !l.recovers.Swap(true) {
		l.log.Info("the stream was not closed cleanly; checking all of it, nothing is lost")
	}
	l.say(slog.LevelDebug, format, v)
}

func (l natsLogger) Errorf(format string, v ...any) { l.say(slog.LevelError, format, v) }
func (l natsLogger) Debugf(string, ...any)          {}
func (l natsLogger) Tracef(string, ...any)          {}

func (l natsLogger) Fatalf(format string, v ...any) {
	l.fatal.Store(true)
	l.say(slog.LevelError, format, v)
}
