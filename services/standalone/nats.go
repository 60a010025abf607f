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

	"github.com/tagstream/tagstream/pkg/service"
)

const (
	natsReady = 30 * time.Second // recovery of a large stream reads its index
	// natsMaxPayload is room for the largest records of the network as JSON.
	natsMaxPayload = 4 << 20
)

// openNATS starts a NATS server inside this process that no network reaches.
func openNATS(dir string, logger *slog.Logger) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "tagstream",
		DontListen: true,
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
	log := natsLogger{log: logger.With("service", "nats"), fatal: &atomic.Bool{}}
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	// One that gave up is never ready.
	if log.fatal.Load() || !s.ReadyForConnections(natsReady) {
		s.Shutdown()
		return nil, errors.New("the embedded NATS server did not become ready; its log says why")
	}
	return s, nil
}

func connectEmbedded(s *server.Server, program string, logger *slog.Logger, changed func(error)) (*nats.Conn, error) {
	opts := append(service.NATSOptions(logger, changed), nats.Name("tagstream "+program), nats.InProcessServer(s))
	nc, err := nats.Connect("", opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	return nc, nil
}

func closeNATS(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// natsLogger passes on what an operator should see of the embedded server.
type natsLogger struct {
	log   *slog.Logger
	fatal *atomic.Bool // whether the server said that it cannot go on
}

func (l natsLogger) say(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l natsLogger) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }

// Warnings are about its own recovery after a crash, which is no trouble here.
func (l natsLogger) Warnf(format string, v ...any)  { l.say(slog.LevelInfo, format, v) }
func (l natsLogger) Errorf(format string, v ...any) { l.say(slog.LevelError, format, v) }
func (l natsLogger) Debugf(string, ...any)          {}
func (l natsLogger) Tracef(string, ...any)          {}

func (l natsLogger) Fatalf(format string, v ...any) {
	l.fatal.Store(true)
	l.say(slog.LevelError, format, v)
}
