package e2e_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/otlptest"
	"github.com/tagstream/tagstream/pkg/tracing"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/simnet"
)

// startTracing traces everything.
func startTracing(t *testing.T, url string) *tracing.Tracing {
	t.Helper()
	tr, err := tracing.Start(t.Context(), tracing.Config{Endpoint: url, Ratio: 1, Service: "tagstream"}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(tr.Stop)
	return tr
}

// tracedPost runs the pipeline until the API shows a post, and returns the post and the API's URL.
// A nil tr disables tracing.
func tracedPost(t *testing.T, b *ingestBench, tr *tracing.Tracing) (simnet.Post, string) {
	t.Helper()
	b.tracer = tr.Tracer("ingest")
	host := b.host()
	x := newIndexBench(t, b.nats)
	x.tracer = tr.Tracer("index")
	url := x.api()
	in := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	in.awaitReady()
	x.indexer(50)
	p := b.post("traced", "trackedtag")
	awaitPost(t, url, p)
	return p, url
}

// traceHeader returns the traceparent of the post's message in the stream.
func (b *ingestBench) traceHeader(p simnet.Post) (seq uint64, traceparent string) {
	b.t.Helper()
	s, err := b.js.Stream(b.ctx, stream.Posts)
	require.NoError(b.t, err)
	msg, err := s.GetLastMsgForSubject(b.ctx, "posts.create")
	require.NoError(b.t, err)
	require.Contains(b.t, string(msg.Data), p.Rkey)
	return msg.Sequence, msg.Header.Get("traceparent")
}

// TestTraces follows one event from the firehose through the stream into the
// transaction, and one request into its query.
//
// Invariant: a trace follows an event from the firehose to the transaction, and no span names an
// account, a record or a tag. See also TestTraceparentHeaders and TestBatchesAreTraced.
func TestTraces(t *testing.T) {
	t.Parallel()
	collector := otlptest.Start(t)
	tr := startTracing(t, collector.URL)
	b := newIngestBench(t, 3)
	p, url := tracedPost(t, b, tr)
	seq, header := b.traceHeader(p)

	const callersTrace = "0af7651916cd43dd8448eb211c80319c"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/posts?tags=trackedtag", nil)
	require.NoError(t, err)
	req.Header.Set("traceparent", "00-"+callersTrace+"-b7ad6b7169203331-01")
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)

	tr.Stop() // sends the finished spans
	spans := collector.Spans()
	one := func(what string, is func(otlptest.Span) bool) otlptest.Span {
		t.Helper()
		i := slices.IndexFunc(spans, is)
		require.GreaterOrEqual(t, i, 0, "no span %s in %d", what, len(spans))
		return spans[i]
	}
	create := one("of the event", func(s otlptest.Span) bool { return header == fmt.Sprintf("00-%s-%s-01", s.TraceID, s.ID) })
	require.Equal(t, "create POSTS", create.Name)
	require.Equal(t, tracepb.Span_SPAN_KIND_PRODUCER, create.Kind)
	require.Empty(t, create.ParentID)
	require.Equal(t, "create", create.Attributes["tagstream.event.kind"])
	require.NotZero(t, create.Attributes["tagstream.upstream.seq"])
	require.NotEmpty(t, create.Attributes["tagstream.upstream.time"])

	send := one("of the append", func(s otlptest.Span) bool { return s.Name == "send POSTS" && slices.Contains(s.Links, create.ID) })
	process := one("of the batch", func(s otlptest.Span) bool { return s.Name == "process POSTS" && slices.Contains(s.Links, create.ID) })
	require.Equal(t, tracepb.Span_SPAN_KIND_CONSUMER, process.Kind)
	require.LessOrEqual(t, process.Attributes["tagstream.stream.first_seq"], int64(seq))
	require.GreaterOrEqual(t, process.Attributes["tagstream.stream.last_seq"], int64(seq))
	for _, s := range []otlptest.Span{send, process} {
		if s.Links[0] == create.ID {
			require.Equal(t, create.TraceID, s.TraceID, "%s must be in the trace of its first event", s.Name)
			require.Equal(t, create.ID, s.ParentID)
		}
	}
	tx := one("of the transaction", func(s otlptest.Span) bool { return s.ParentID == process.ID && s.Name == "transaction" })
	require.Equal(t, process.TraceID, tx.TraceID)
	require.Equal(t, "postgresql", tx.Attributes["db.system.name"])
	require.GreaterOrEqual(t, tx.Attributes["tagstream.rows.posts"], int64(1))

	server := one("of the request", func(s otlptest.Span) bool {
		return s.TraceID == callersTrace && s.Kind == tracepb.Span_SPAN_KIND_SERVER
	})
	require.Equal(t, "GET /v1/posts", server.Name)
	require.Equal(t, "b7ad6b7169203331", server.ParentID)
	require.Equal(t, int64(http.StatusOK), server.Attributes["http.response.status_code"])
	query := one("of the query", func(s otlptest.Span) bool { return s.ParentID == server.ID })
	require.Equal(t, "SELECT posts", query.Name)
	require.Equal(t, int64(1), query.Attributes["db.response.returned_rows"])

	for _, s := range spans {
		require.False(t, s.Failed && s.Name != "GET /v1/posts/{did}/{rkey}", s)
		for _, secret := range []string{p.DID, p.Rkey, "trackedtag"} {
			require.NotContains(t, fmt.Sprint(s.Name, s.Attributes), secret, "spans must not name accounts, records or tags")
		}
	}
}

// Invariant: with tracing off no message has a trace header and there are no spans. See also
// TestOff and TestOffAllocatesNothing.
func TestNoTraces(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 3)
	p, _ := tracedPost(t, b, nil)
	_, header := b.traceHeader(p)
	require.Empty(t, header)
}

// A collector that accepts connections but never answers does not prevent work or a stop.
func TestUnresponsiveCollector(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })
	b := newIngestBench(t, 3)
	p, _ := tracedPost(t, b, startTracing(t, "http://"+silent.Addr().String()+"/v1/traces"))
	_, header := b.traceHeader(p)
	require.True(t, strings.HasPrefix(header, "00-"), "the post must be traced: %q", header)
}
