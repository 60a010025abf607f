// Package ingest is the service that reads Bluesky's firehose (Jetstream) and publishes what the
// index needs to the stream: root posts with tags, their updates and deletions, account and sync
// events, in upstream order.
//
// Its parts are firehose (which host, from where), decode (what an event means), forward (into the
// stream, under a lease) and profiles (author look-ups); this package wires them together. The
// stream is the only state: each message carries the upstream position that it came from, so data
// and position are one write, and a new run resumes after the stream's last message.
//
// Run ends with its context, after StopAfter, or if a newer version wrote the stream. It waits out,
// and reports, everything else: hosts that are away, or a stream that is away, full, or written by
// another program.
package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
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
	"github.com/tagstream/tagstream/services/ingest/internal/profiles"
)

// Components of readiness, as passed to Deps.Ready.
const (
	// ComponentFirehose is well while a Jetstream host is being read.
	ComponentFirehose = "ingest.firehose"
	// ComponentStream is well while this program writes to the stream.
	ComponentStream = "ingest.stream"
)

// Deps are what ingest needs from its program.
type Deps struct {
	// NATS must reconnect indefinitely (service.NATSOptions).
	NATS *nats.Conn
	// Domain is the JetStream domain of the streams; "" is the server's own.
	Domain string
	Logger *slog.Logger
	// Registry receives the metrics; nil registers none.
	Registry prometheus.Registerer
	// Ready, if not nil, receives each component's condition, nil if well. It is often called with
	// the same condition.
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
	tracer   trace.Tracer       // nil is off
	profiles *profiles.Profiles // nil is off
	// reading reports that a host is connected and being read.
	reading atomic.Bool
}

// New checks cfg and wires the service. It starts nothing. The error is a *service.ConfigError if a
// setting is bad.
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
	s := &Service{
		cfg: cfg.withDefaults(), firehose: fh, js: js, logger: deps.Logger, ready: deps.Ready, metrics: m,
		tally: &tally{metrics: m},
		log:   &logbook{js: js, logger: deps.Logger, metrics: m, entries: make(chan stream.LogEntry, logQueue)},
		id:    runID(), tracer: deps.Tracer,
	}
	if cfg.ProfilesURL != "" {
		s.profiles = profiles.New(cfg.ProfilesURL, cfg.ProfilesTiming, deps.Logger, m)
	}
	return s, nil
}

// runID returns a name for this run of the program.
func runID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])
}

// Run reads and publishes until ctx ends or StopAfter has passed. In both cases it returns nil,
// once the last position is in the stream and the lease is given back. Call it only once.
func (s *Service) Run(ctx context.Context) error {
	began := time.Now()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	helpers.Go(func() { s.log.run(background) })
	helpers.Go(func() { s.report(background) })
	defer helpers.Wait()
	defer stop()

	s.log.put(stream.LogEntry{What: "started", Detail: "as " + s.id})
	write := forward.Config{Stream: s.cfg.Stream, ID: s.id, Heartbeat: s.cfg.Heartbeat, Reading: s.reading.Load, SideWork: []func(context.Context, *forward.SideWriter){s.runJobs}}
	if s.profiles != nil {
		write.SideWork = append(write.SideWork, s.lookUp)
	}
	err := forward.New(s.js, write, s.read, s.logger, &observer{Service: s}).Run(ctx)
	s.summary(began, err)
	return err
}

// lookUp runs author look-ups while this program leads.
func (s *Service) lookUp(ctx context.Context, to *forward.SideWriter) {
	s.profiles.Run(ctx, func(ctx context.Context, events []*event.Event) error {
		for _, ev := range events {
			if err := to.Put(ctx, ev); err != nil {
				return err
			}
		}
		return to.Flush(ctx)
	})
}

// offer queues the authors of stored posts for look-ups: by now the posts are in the stream, so the
// index learns of the authors first.
func (s *Service) offer(events []*event.Event) {
	if s.profiles == nil {
		return
	}
	for _, ev := range events {
		if ev.Kind == event.KindCreate || ev.Kind == event.KindUpdate {
			s.profiles.Offer(ev.DID)
		}
	}
}

// read is the live source: it reads the firehose after from, decodes and counts events.
func (s *Service) read(ctx context.Context, from event.Position, maxPayload int) iter.Seq2[forward.Batch, error] {
	reader := firehose.New(s.firehose, s.logger)
	reader.OnNotice = s.notice
	reader.OnClientError = func(error) { s.metrics.clientErrors.Inc() }
	return func(yield func(forward.Batch, error) bool) {
		defer s.setReading(false)
		d := decode.Reading{Decoder: decode.Decoder{MaxPayload: maxPayload}}
		for b, err := range reader.Read(ctx, from) {
			if err != nil {
				yield(forward.Batch{}, err)
				return
			}
			received := time.Now()
			out := forward.Batch{Position: b.Last}
			for it := range d.Items(b) {
				s.tally.countRead(it.Upstream, it.Result)
				if it.SyncEnd != nil {
					out.Events = append(out.Events, it.SyncEnd)
				}
				if it.Event != nil {
					s.traceEvent(ctx, it.Event, received)
					out.Events = append(out.Events, it.Event)
				}
			}
			if len(b.Positions) > 0 {
				s.tally.progress(b.Positions[0], b.Last, time.Now())
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

func (s *Service) setReading(yes bool) {
	s.reading.Store(yes)
	set(s.metrics.connected, yes)
}

// notice passes a notice of the firehose to metrics, readiness and the log.
func (s *Service) notice(n firehose.Notice) {
	s.metrics.connections.WithLabelValues(string(n.Kind)).Inc()
	switch n.Kind {
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
	s.log.put(stream.LogEntry{What: string(n.Kind), Host: n.Host, Position: n.Position, Detail: n.Detail})
}

// observer passes events of the forwarder to metrics, readiness and the log.
type observer struct {
	*Service
	full bool // and that was logged
}

func (o *observer) Stored(events []*event.Event, took time.Duration) {
	o.offer(events)
	switch {
	case events[0].LookedUp(): // and counted there
		return
	case events[0].Resume != nil: // a job's
		o.metrics.backfilled.Add(float64(len(events)))
		return
	}
	o.tally.countPublished(events)
	o.traceAppend(events, took)
	o.metrics.appendTime.Observe(took.Seconds())
	o.metrics.batchEvents.Observe(float64(len(events)))
}

func (o *observer) Holding(held bool) { set(o.metrics.lease, held) }

func (o *observer) Condition(err error) {
	full := errors.Is(err, stream.ErrFull)
	switch {
	case full && !o.full:
		o.log.put(stream.LogEntry{What: "failed", Detail: "the stream has no room"})
	case errors.Is(err, forward.ErrRetrying):
		o.metrics.retries.Inc()
	case errors.Is(err, stream.ErrFenced):
		o.metrics.fenced.Inc()
		o.log.put(stream.LogEntry{What: "fenced", Detail: err.Error()})
	case errors.Is(err, forward.ErrStandingBy):
		// A standby does not read the firehose, and is ready without it.
		err = obs.StandingBy(err)
		o.ready(ComponentFirehose, err)
	}
	if full || err == nil {
		o.full = full
		set(o.metrics.full, full)
	}
	o.ready(ComponentStream, err)
}

func (o *observer) Gap(detail string) {
	o.logger.Error(detail)
	o.notice(firehose.Notice{Kind: firehose.Gap, Detail: detail})
}
