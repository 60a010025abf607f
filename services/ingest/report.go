package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	// measureEvery is how often the stream's extent is read for the metrics.
	measureEvery = 5 * time.Second
	// measureTimeout bounds the requests for that.
	measureTimeout = 5 * time.Second
)

// report keeps the metrics of the stream current, and regularly logs progress, until ctx ends.
func (s *Service) report(ctx context.Context) {
	measure := time.NewTicker(measureEvery)
	defer measure.Stop()
	tick := time.NewTicker(s.cfg.Report)
	defer tick.Stop()
	var before counts
	s.measure(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-measure.C:
			s.measure(ctx)
			continue
		case <-tick.C:
		}
		now, _, last, received := s.tally.snapshot()
		attrs := append(now.since(before).attrs(), s.measure(ctx)...)
		if !received.IsZero() {
			attrs = append(attrs, "host", last.Host, "seq", last.Seq,
				"lag", time.Since(last.NetworkTime()).Round(time.Millisecond),
				"last_event_age", time.Since(received).Round(time.Millisecond))
		}
		s.logger.Info("progress", attrs...)
		before = now
	}
}

// measure reads the stream's extent and its size on disk, and returns them for a log line. It does
// not report a server that does not answer: forward does.
func (s *Service) measure(ctx context.Context) []any {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	if storage, err := stream.GetStorage(ctx, s.js); err == nil {
		s.metrics.storage.Set(float64(storage.Bytes))
		s.metrics.storageMax.Set(float64(storage.Limit))
	}
	state, err := stream.GetState(ctx, s.js)
	if err != nil {
		return []any{slog.String("stream_bytes", "unknown")}
	}
	s.metrics.streamFirst.Set(float64(state.First))
	s.metrics.streamLast.Set(float64(state.Last))
	s.metrics.streamBytes.Set(float64(state.Bytes))
	s.metrics.streamMax.Set(float64(state.MaxBytes))
	s.metrics.streamMaxAge.Set(state.MaxAge.Seconds())
	return []any{slog.Uint64("stream_bytes", state.Bytes), slog.Uint64("stream_messages", state.Last-state.First+1)}
}

// summary ends a run in both logs.
func (s *Service) summary(began time.Time, err error) {
	all, first, last, _ := s.tally.snapshot()
	took := time.Since(began).Round(time.Millisecond)
	attrs := append([]any{"took", took}, all.attrs()...)
	if !last.IsZero() {
		attrs = append(attrs, "from", stamp(first), "to", stamp(last), "covered", last.NetworkTime().Sub(first.NetworkTime()).Round(time.Millisecond))
	}
	detail := fmt.Sprintf("after %s: read %d, kept %d, published %d", took, all.read, all.kept, all.published)
	if err != nil {
		attrs = append(attrs, "err", err)
		detail += ": " + err.Error()
	}
	s.logger.Info("ingest stopped", attrs...)
	s.log.put(stream.LogEntry{What: "stopped", Host: last.Host, Position: last, Detail: detail})
}

// stamp formats a position's time, "-" if it is unknown, as before all history.
func stamp(p event.Position) string {
	if t := p.NetworkTime(); t.After(time.Unix(0, 0)) {
		return t.Format(time.RFC3339Nano)
	}
	return "-"
}
