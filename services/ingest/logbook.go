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
	// logAttempts and logPause are spent on each: the log's stream may not
	// exist yet.
	logAttempts = 5
	logPause    = time.Second
	// logDrain bounds the storing of what waits when ingest stops.
	logDrain = 3 * time.Second
)

// logbook stores entries of the ingest log, one after the other, as well as it
// can. It never holds anybody up: when it cannot keep pace, entries are lost
// and counted.
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

// run stores entries until ctx ends, and then what still waits.
func (l *logbook) run(ctx context.Context) {
	for {
		select {
		case e := <-l.entries:
			l.store(ctx, e)
			continue
		case <-ctx.Done():
		}
		break
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), logDrain)
	defer cancel()
	for {
		select {
		case e := <-l.entries:
			l.store(drain, e)
		default:
			return
		}
	}
}

func (l *logbook) store(ctx context.Context, e stream.LogEntry) {
	// An entry under way when ctx ends is finished.
	attempt := context.WithoutCancel(ctx)
	for n := 1; ; n++ {
		once, cancel := context.WithTimeout(attempt, logDrain)
		err := stream.PutLog(once, l.js, e)
		cancel()
		if err == nil {
			return
		}
		if n < logAttempts {
			select {
			case <-time.After(logPause):
				continue
			case <-ctx.Done():
			}
		}
		l.metrics.logDropped.Inc()
		l.logger.Debug("an entry of the ingest log is lost", "what", e.What, "err", err)
		return
	}
}
