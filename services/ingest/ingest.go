// Package ingest is the service that reads Bluesky's firehose (Jetstream) and
// publishes what the index needs to know to the stream: root posts with tags,
// their updates and deletions, account and sync events, in upstream order.
//
// Its parts are firehose (which host, from where), decode (what an event
// means) and forward (into the stream, under a lease); this package wires
// them together. The stream is its only state: each message carries the
// upstream position that it came from, so that data and position are one
// write, and a new run goes on behind the stream's last message.
//
// Run ends with its context, after StopAfter, or on a stream that a newer
// version wrote. Everything else (hosts away, the stream away, full, or
// written by another) it waits out, and says so.
package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest/internal/decode"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
	"github.com/tagstream/tagstream/services/ingest/internal/forward"
)

// Components of readiness, as Deps.Ready hears of them.
const (
	// ComponentFirehose is well while a Jetstream host is being read.
	ComponentFirehose = "ingest.firehose"
	// ComponentStream is well while this program writes to the stream.
	ComponentStream = "ingest.stream"
)

// Deps are what ingest needs of its program.
type Deps struct {
	// NATS must reconnect for ever (service.NATSOptions).
	NATS *nats.Conn
	// Domain is the JetStream domain that the streams are in; "" is the server's own.
	Domain string
	Logger *slog.Logger
	// Registry gets the metrics; nil registers none.
	Registry prometheus.Registerer
	// Ready, if not nil, hears of each component's condition, nil when well.
	// It is called often with the same.
	Ready func(component string, err error)
	// Tracer traces events; nil traces none.
	Tracer trace.Tracer
}

// Service is the ingest service.
type Service struct {
	cfg      Config
	firehose firehose.Config
	js       jetstream.JetStream
	logger   *slog.Logger
	ready    func(string, error)
	metrics  *metrics
	tally    *tally
	log      *logbook
	id       string
	tracer   trace.Tracer // nil is off
	// reading says that a host is connected and being read.
	reading atomic.Bool
}

// New checks cfg and wires the service. It starts nothing. The error is a
// *service.ConfigError where a setting is bad.
func New(cfg Config, deps Deps) (*Service, error) {
	fh, err := cfg.resolve(time.Now())
	if err != nil {
		return nil, err
	}
	js, err := stream.JetStream(deps.NATS, deps.Domain)
	if err != nil {
		return nil, fmt.Errorf("use the NATS connection: %w", err)
	}
	if deps.Registry == nil {
		deps.Registry = prometheus.NewRegistry()
	}
	m := newMetrics(deps.Registry)
	if deps.Ready == nil {
		deps.Ready = func(string, error) {}
	}
	return &Service{
		cfg: cfg.withDefaults(), firehose: fh, js: js, logger: deps.Logger, ready: deps.Ready, metrics: m,
		tally: &tally{metrics: m},
		log:   &logbook{js: js, logger: deps.Logger, metrics: m, entries: make(chan stream.LogEntry, logQueue)},
		id:    runID(), tracer: deps.Tracer,
	}, nil
}

// runID names this run of the program.
func runID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])
}

// Run reads and publishes until ctx ends or StopAfter has passed; it returns
// nil in both cases, once the last position is in the stream and the lease is
// given back. It is to be called once.
func (s *Service) Run(ctx context.Context) error {
	began := time.Now()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	helpers.Go(func() { s.log.run(background) })
	helpers.Go(func() { s.report(background) })
	defer helpers.Wait()
	defer stop()

	s.log.put(stream.LogEntry{What: "started", Detail: "as " + s.id})
	f := forward.New(s.js, forward.Config{Stream: s.cfg.Stream, ID: s.id, Heartbeat: s.cfg.Heartbeat, Reading: s.reading.Load, Job: s.runJobs}, s.source, s.logger, s.hooks())
	err := f.Run(ctx)
	s.summary(began, err)
	return err
}

// source reads the firehose and decodes what it gives.
func (s *Service) source(ctx context.Context, from event.Position, maxPayload int, emit func(context.Context, forward.Batch) error) error {
	reader := firehose.New(s.firehose, s.logger)
	reader.OnNotice = s.notice
	reader.OnClientError = func(error) { s.metrics.clientErrors.Inc() }
	defer s.setReading(false)
	before := from
	return reader.Run(ctx, from, func(ctx context.Context, b firehose.Batch) error {
		d := decode.Decoder{MaxPayload: maxPayload}
		out := forward.Batch{Position: b.Last}
		if len(b.Events) == 0 {
			before = b.Last // another host or another history begins, or nothing new
		}
		received := time.Now()
		for i := range b.Events {
			res := d.Decode(&b.Events[i], b.Positions[i])
			s.tally.event(&b.Events[i], res)
			if res.Drop == decode.BadPosition {
				continue
			}
			if before.EndsBefore(b.Positions[i]) {
				out.Events = append(out.Events, before.Over())
			}
			before = b.Positions[i]
			if res.Event != nil {
				s.traceEvent(ctx, res.Event, received)
				out.Events = append(out.Events, res.Event)
			}
		}
		if len(b.Events) > 0 {
			s.tally.progress(b.Positions[0], b.Last, time.Now())
		}
		return emit(ctx, out)
	})
}

func (s *Service) setReading(yes bool) {
	s.reading.Store(yes)
	s.metrics.connected.Set(map[bool]float64{true: 1}[yes])
}

// notice passes a notice of the firehose to metrics, readiness and the log.
func (s *Service) notice(n firehose.Notice) {
	s.metrics.connections.WithLabelValues(string(n.What)).Inc()
	switch n.What {
	case firehose.Connected:
		s.setReading(true)
		s.ready(ComponentFirehose, nil)
	case firehose.Disconnected, firehose.Silent:
		s.setReading(false)
		s.ready(ComponentFirehose, fmt.Errorf("%s: %s", n.Host, n.Detail))
	case firehose.Failed:
		s.ready(ComponentFirehose, fmt.Errorf("%s: %s", n.Host, n.Detail))
	}
	if n.Repeated {
		return
	}
	s.log.put(stream.LogEntry{What: string(n.What), Host: n.Host, Position: n.Position, Detail: n.Detail})
}

// condition passes what stands in the way of writing on to readiness. A program that
// stands by has no firehose to be ready for.
func (s *Service) condition(err error) {
	if errors.Is(err, forward.ErrStandingBy) {
		err = obs.StandingBy(err)
		s.ready(ComponentFirehose, err)
	}
	s.ready(ComponentStream, err)
}

func (s *Service) hooks() forward.Hooks {
	return forward.Hooks{
		Published: func(events []*event.Event, took time.Duration) {
			s.tally.publish(events)
			s.traceAppend(events, took)
			s.metrics.appendTime.Observe(took.Seconds())
			s.metrics.batchEvents.Observe(float64(len(events)))
		},
		Past:      func(events []*event.Event, _ time.Duration) { s.metrics.backfilled.Add(float64(len(events))) },
		Holding:   func(held bool) { set(s.metrics.lease, held) },
		Condition: s.condition,
		Retry:     func(error) { s.metrics.retries.Inc() },
		Gap: func(detail string) {
			s.logger.Error(detail)
			s.notice(firehose.Notice{What: firehose.Gap, Detail: detail})
		},
		Full: func(full bool) {
			set(s.metrics.full, full)
			if full {
				s.log.put(stream.LogEntry{What: "failed", Detail: "the stream has no room"})
			}
		},
		Fenced: func(err error) {
			s.metrics.fenced.Inc()
			s.log.put(stream.LogEntry{What: "fenced", Detail: err.Error()})
		},
	}
}
