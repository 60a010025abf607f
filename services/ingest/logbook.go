package ingest

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	// logQueue is how many entries may wait to be stored.
	logQueue = 64
	// logAttempts and logPause apply to each entry: the log's stream may not exist yet.
	logAttempts = 5
	logPause    = time.Second
	// logDrain bounds the storing of waiting entries when ingest stops.
	logDrain = 3 * time.Second
)

// logbook stores entries of the ingest log, one after the other. Callers never wait for it: if it
// cannot keep up, entries are lost and counted.
type logbook struct {
	js      jetstream.JetStream
	logger  *slog.Logger
	metrics *metrics
	entries chan stream.LogEntry
}

func (l *logbook) put(e stream.LogEntry) {
	e.At = time.Now().UTC()
	select {
	case l.entries <- e:
	default:
		l.metrics.logDropped.Inc()
	}
}

// run stores entries until ctx ends, and then stores the waiting ones for up to logDrain.
func (l *logbook) run(ctx context.Context) {
	storing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(logDrain, stop) })()
	for {
		select {
		case e := <-l.entries:
			l.store(storing, e)
			continue
		default:
		}
		select {
		case e := <-l.entries:
			l.store(storing, e)
		case <-ctx.Done():
			return
		}
	}
}

func (l *logbook) store(ctx context.Context, e stream.LogEntry) {
	var err error
	for range logAttempts {
		if err = stream.PutLog(ctx, l.js, e); err == nil {
			return
		}
		select {
		case <-time.After(logPause):
		case <-ctx.Done():
		}
	}
	l.metrics.logDropped.Inc()
	l.logger.Debug("lost an entry of the ingest log", "what", e.What, "err", err)
}
