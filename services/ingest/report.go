package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

// reportTimeout bounds the question how big the stream is.
const reportTimeout = 5 * time.Second

// report logs progress now and then until ctx ends.
func (s *Service) report(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Report)
	defer tick.Stop()
	var before counts
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, _, last, received := s.tally.snapshot()
		attrs := append(now.since(before).attrs(), s.size(ctx)...)
		if !received.IsZero() {
			attrs = append(attrs, "host", last.Host, "seq", last.Seq,
				"lag", time.Since(last.Time).Round(time.Millisecond),
				"last_event_age", time.Since(received).Round(time.Millisecond))
		}
		s.logger.Info("progress", attrs...)
		before = now
	}
}

// size is what the stream takes on disk, for a log line.
func (s *Service) size(ctx context.Context) []any {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	state, err := stream.GetState(ctx, s.js)
	if err != nil {
		return []any{slog.String("stream_bytes", "unknown")}
	}
	s.metrics.streamBytes.Set(float64(state.Bytes))
	return []any{slog.Uint64("stream_bytes", state.Bytes), slog.Uint64("stream_messages", state.Last-state.First+1)}
}

// summary closes a run in both logs.
func (s *Service) summary(began time.Time, err error) {
	all, first, last, _ := s.tally.snapshot()
	took := time.Since(began).Round(time.Millisecond)
	attrs := append([]any{"took", took}, all.attrs()...)
	if !last.IsZero() {
		attrs = append(attrs, "from", stamp(first), "to", stamp(last), "covered", last.Time.Sub(first.Time).Round(time.Millisecond))
	}
	detail := fmt.Sprintf("after %s: read %d, kept %d, published %d", took, all.read, all.kept, all.published)
	if err != nil {
		attrs = append(attrs, "err", err)
		detail += ": " + err.Error()
	}
	s.logger.Info("ingest stopped", attrs...)
	s.log.put(stream.LogEntry{What: "stopped", Host: last.Host, Position: last, Detail: detail})
}

func stamp(p event.Position) string { return p.Time.Format(time.RFC3339Nano) }
