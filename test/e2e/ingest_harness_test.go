package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/simnet"
)

const (
	// ingestTestLimit bounds one test; ingestWait one wait in it.
	ingestTestLimit = 3 * time.Minute
	ingestWait      = 60 * time.Second
)

// ingestBench is a simulated network with NATS, on which ingest is run.
type ingestBench struct {
	t    *testing.T
	ctx  context.Context
	net  *simnet.Network
	nats *natstest.TestServer
	js   jetstream.JetStream
	// runs counts the runs of ingest, which share one stream.
	runs int
	// tracer is the tracer of ingest; nil disables tracing.
	tracer trace.Tracer
}

func newIngestBench(t *testing.T, accounts int, options ...natstest.Option) *ingestBench {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), ingestTestLimit)
	t.Cleanup(cancel)
	network, err := simnet.New(simnet.Config{Seed: 1, Accounts: accounts})
	require.NoError(t, err)
	server := natstest.Server(t, options...)
	return &ingestBench{t: t, ctx: ctx, net: network, nats: server, js: server.JetStream(t)}
}

// newIngest returns a bench with a real Jetstream server.
func newIngest(t *testing.T, accounts int) (*ingestBench, *simnet.Jetstream) {
	t.Helper()
	b := newIngestBench(t, accounts)
	return b, b.host()
}

// newIndex returns an index of the bench's stream, and the URL of an API on it.
func (b *ingestBench) newIndex() (*indexBench, string) {
	b.t.Helper()
	x := newIndexBench(b.t, b.nats)
	return x, x.api()
}

// host starts a real Jetstream server on the network.
func (b *ingestBench) host(args ...string) *simnet.Jetstream {
	b.t.Helper()
	return b.startHost(simnet.JetstreamConfig{Args: args})
}

// replaceHost starts another server at the address of a stopped one, with an empty archive.
func (b *ingestBench) replaceHost(host *simnet.Jetstream) *simnet.Jetstream {
	b.t.Helper()
	return b.startHost(simnet.JetstreamConfig{Addr: strings.TrimPrefix(host.URL(), "http://")})
}

func (b *ingestBench) startHost(cfg simnet.JetstreamConfig) *simnet.Jetstream {
	b.t.Helper()
	var err error
	cfg.Binary, err = simnet.BuildJetstream(b.ctx, "")
	require.NoError(b.t, err)
	cfg.DataDir = filepath.Join(b.t.TempDir(), "jetstream")
	j, err := b.net.StartJetstream(b.ctx, cfg)
	require.NoError(b.t, err)
	b.t.Cleanup(func() {
		_ = j.Stop()
		if b.t.Failed() {
			warnings := j.Warnings()
			b.t.Logf("the server's newest warnings: %s", warnings[max(0, len(warnings)-10):])
		}
	})
	return j
}

// ingestRun is one run of ingest.
type ingestRun struct {
	t        *testing.T
	stop     context.CancelFunc
	done     chan error
	registry *prometheus.Registry
	health   *obs.Health
}

// ingestPatience returns time limits for servers on loopback.
func ingestPatience(cfg *ingest.Config) {
	cfg.Timing.Dial = time.Second
	cfg.Timing.Verify = 2 * time.Second
	cfg.Timing.Quiet = 2 * time.Second
	cfg.Timing.Tick = 50 * time.Millisecond
	if cfg.Timing.Idle == 0 {
		cfg.Timing.Idle = time.Second
	}
	cfg.Timing.Troubled = 2 * time.Second
	cfg.Timing.Ask = 500 * time.Millisecond
	cfg.Timing.Settle = 500 * time.Millisecond
	cfg.Timing.BackoffMin = 50 * time.Millisecond
	cfg.Timing.BackoffMax = 500 * time.Millisecond
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 300 * time.Millisecond
	}
}

// ingest runs ingest until it is stopped or the test ends.
func (b *ingestBench) ingest(cfg ingest.Config) *ingestRun {
	b.t.Helper()
	ingestPatience(&cfg)
	b.runs++
	logger := slog.New(slog.NewTextHandler(testWriter{b.t, fmt.Sprintf("ingest %d: ", b.runs)}, nil))
	r := &ingestRun{
		t: b.t, done: make(chan error, 1), registry: prometheus.NewRegistry(),
		health: obs.NewHealth(logger, ingest.ComponentFirehose, ingest.ComponentStream),
	}
	svc, err := ingest.New(cfg, ingest.Deps{
		NATS:     b.nats.Conn(b.t),
		Logger:   logger,
		Registry: r.registry, Tracer: b.tracer, Ready: r.health.Set,
	})
	require.NoError(b.t, err)
	// As in production, without a deadline: it would replace the client's time limit of each request.
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.ctx))
	r.stop = cancel
	go func() { r.done <- svc.Run(ctx) }()
	b.t.Cleanup(r.halt)
	return r
}

// halt stops the run like SIGTERM. A second call does nothing.
func (r *ingestRun) halt() {
	r.stop()
	r.wait()
}

// wait returns when the run has ended by itself.
func (r *ingestRun) wait() {
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("ingest ended with: %v", err)
		}
		r.done <- nil
	case <-time.After(ingestWait):
		r.t.Error("ingest does not end")
	}
}

// idle returns why a component is not ready, or stands by; "" if it works.
func (r *ingestRun) idle(component string) string {
	return r.health.NotReady()[component] + r.health.StandsBy()[component]
}

// awaitReady waits until both components work.
func (r *ingestRun) awaitReady() {
	r.t.Helper()
	poll.Until(r.t, ingestWait, func() (bool, string) {
		fh, st := r.idle(ingest.ComponentFirehose), r.idle(ingest.ComponentStream)
		return fh+st == "", fmt.Sprintf("firehose: %q, stream: %q", fh, st)
	})
}

// counter returns the value of one series.
func (r *ingestRun) counter(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	require.NoError(r.t, err)
	for _, f := range families {
		if f.GetName() != "tagstream_ingest_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(labels) == 0 || m.GetLabel()[0].GetValue() == labels[0] {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	r.t.Fatalf("no series %s %v", name, labels)
	return 0
}

// events returns the stream's events without positions.
func (b *ingestBench) events() []*event.Event {
	b.t.Helper()
	var out []*event.Event
	for _, e := range b.all() {
		if e.Kind != event.KindPosition {
			out = append(out, e)
		}
	}
	return out
}

func (b *ingestBench) all() []*event.Event {
	b.t.Helper()
	st, err := stream.GetState(b.ctx, b.js)
	if err != nil || st.Last < st.First {
		return nil
	}
	s, err := b.js.Stream(b.ctx, stream.Posts)
	require.NoError(b.t, err)
	var out []*event.Event
	for seq := st.First; seq <= st.Last; seq++ {
		msg, err := s.GetMsg(b.ctx, seq)
		require.NoError(b.t, err)
		e, err := event.Decode(msg.Data)
		require.NoError(b.t, err, "message %d: %s", seq, msg.Data)
		out = append(out, e)
	}
	return out
}

// awaitEvents waits until the stream has n events, not counting positions.
func (b *ingestBench) awaitEvents(n int) []*event.Event {
	b.t.Helper()
	var events []*event.Event
	poll.Until(b.t, ingestWait, func() (bool, string) {
		events = b.events()
		return len(events) >= n, fmt.Sprintf("%d events of %d", len(events), n)
	})
	require.Len(b.t, events, n, "more events than expected: %s", ingestLines(events))
	return events
}

// log returns the ingest log's entries as "what: detail".
func (b *ingestBench) log() []stream.LogEntry {
	b.t.Helper()
	var out []stream.LogEntry
	require.NoError(b.t, stream.Log(b.ctx, b.js, 1000, func(e stream.LogEntry) error {
		out = append(out, e)
		return nil
	}))
	return out
}

func (b *ingestBench) post(text string, tags ...string) simnet.Post {
	b.t.Helper()
	return b.create(b.net.DIDs()[0], text, tags...)
}

func (b *ingestBench) account() (did string) {
	b.t.Helper()
	did, err := b.net.CreateAccount()
	require.NoError(b.t, err)
	return did
}

func (b *ingestBench) create(did, text string, tags ...string) simnet.Post {
	b.t.Helper()
	p, err := b.net.CreatePost(did, "", simnet.NewPost(b.net.Now(), text, tags...))
	require.NoError(b.t, err)
	return p
}

func (b *ingestBench) update(p simnet.Post, text string, tags ...string) {
	b.t.Helper()
	_, err := b.net.UpdatePost(p.DID, p.Rkey, simnet.NewPost(b.net.Now(), text, tags...))
	require.NoError(b.t, err)
}

func (b *ingestBench) remove(p simnet.Post) {
	b.t.Helper()
	_, err := b.net.DeletePost(p.DID, p.Rkey)
	require.NoError(b.t, err)
}

func (b *ingestBench) setStatus(did string, active bool, status string) {
	b.t.Helper()
	_, err := b.net.SetAccountStatus(did, active, status)
	require.NoError(b.t, err)
}

// check compares all answers of the API at url with what the network emitted.
func (b *ingestBench) check(url string) {
	b.t.Helper()
	want, err := model.FromNetwork(b.net.Log())
	require.NoError(b.t, err)
	model.CheckHTTP(b.t, url, want)
}

// ingestLines returns events in a readable form.
func ingestLines(events []*event.Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprintf("%d %s %s %s", e.Source.Seq, e.Kind, e.Rkey, e.Tags))
	}
	return out
}

// ingestRkeys returns the record keys of events, in order.
func ingestRkeys(events []*event.Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.Rkey)
	}
	return out
}

type testWriter struct {
	t      *testing.T
	prefix string
}

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(w.prefix + string(p[:len(p)-1]))
	return len(p), nil
}
