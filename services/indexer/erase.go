package indexer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/services/indexer/internal/erase"
)

// eraseConns is how many connections erasing uses: it sends one request at a time.
const eraseConns = 1

// erase starts to erase payloads of removed posts, alongside the indexing, and returns a function
// that stops it.
func (x *Indexer) erase(ctx context.Context) (stop func(), err error) {
	if x.cfg.EraseWithin == EraseNever {
		return func() {}, nil
	}
	w, err := openEraser(ctx, x.cfg.Database, x.deps.ID)
	if err != nil {
		return nil, err
	}
	e := &erase.Eraser{
		JS: x.js, Writer: w, Logger: x.log, Within: x.cfg.EraseWithin, MinAge: erase.MinAge,
		OnErased: func(kind string) { x.metrics.erasedPayloads.WithLabelValues(kind).Inc() },
		OnPass:   func(begun time.Time) { x.metrics.erasePass.Set(float64(begun.UnixMilli()) / 1e3) },
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { e.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
		w.Close()
		x.metrics.erasePass.Set(0)
	}, nil
}

func openEraser(ctx context.Context, o store.Options, id string) (*write.Writer, error) {
	o.MaxConns = eraseConns
	return write.Open(ctx, o, id+" erasing")
}

// EraseConfig says where to erase.
type EraseConfig struct {
	// Database is where the index lives, with a role that may change rows.
	Database store.Options
	// Within is as Config.EraseWithin.
	Within time.Duration
	// MinAge is how old a message must be before it is erased.
	MinAge time.Duration
	// ID is unique to this run of the program.
	ID string
}

// Erase makes one pass of what a running indexer does automatically: it erases the payloads of
// removed posts and accounts. It returns how many of the stream's messages and how many dead
// letters it erased.
func Erase(ctx context.Context, cfg EraseConfig, nc *nats.Conn, logger *slog.Logger) (posts, letters int, err error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, 0, fmt.Errorf("use JetStream: %w", err)
	}
	w, err := openEraser(ctx, cfg.Database, cfg.ID)
	if err != nil {
		return 0, 0, err
	}
	defer w.Close()
	e := &erase.Eraser{JS: js, Writer: w, Logger: logger.With("service", "erase"), Within: cfg.Within, MinAge: cfg.MinAge}
	sum, err := e.Pass(ctx)
	return sum.Erased[erase.Posts], sum.Erased[erase.Letters] + sum.Erased[erase.Unreadable], err
}
