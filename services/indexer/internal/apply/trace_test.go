package apply_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
)

// A batch with traced messages has one span, linked to them, with its transaction as a child.
// Batches without traced messages, or applied without a tracer, have none.
func TestBatchesAreTraced(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	recorder := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
	parent := func(n int) string { return fmt.Sprintf("00-%032x-%016x-01", n, n) }
	batch := func(traceparents ...string) (messages []stream.Message) {
		for _, p := range traceparents {
			x.seq++
			ev := event.Event{Kind: event.KindPosition, Source: eventtest.Position(int(x.seq))}
			messages = append(messages, stream.Message{Seq: x.seq, Data: eventtest.Encode(t, ev), Traceparent: p})
		}
		return messages
	}
	require.NoError(t, x.applier.Apply(t.Context(), batch(parent(1))))
	x.applier.Tracer = tracer
	require.NoError(t, x.applier.Apply(t.Context(), batch("", "no trace", "")))
	require.Empty(t, recorder.Ended())

	require.NoError(t, x.applier.Apply(t.Context(), batch("", parent(2), "", parent(3))))
	spans := recorder.Ended()
	require.Len(t, spans, 2)
	tx, process := spans[0], spans[1]
	require.Equal(t, "process POSTS", process.Name())
	require.Equal(t, process.SpanContext().SpanID(), tx.Parent().SpanID())
	require.Equal(t, fmt.Sprintf("%032x", 2), process.SpanContext().TraceID().String())
	require.Len(t, process.Links(), 2)
	require.Equal(t, fmt.Sprintf("%016x", 3), process.Links()[1].SpanContext.SpanID().String())
	attributes := map[string]int64{}
	for _, kv := range process.Attributes() {
		attributes[string(kv.Key)] = kv.Value.AsInt64()
	}
	require.Equal(t, int64(4), attributes["messaging.batch.message_count"])
	require.Equal(t, int64(x.seq), attributes["tagstream.stream.last_seq"])
	require.Equal(t, int64(x.seq-3), attributes["tagstream.stream.first_seq"])

	// A failure is recorded without its text.
	require.NoError(t, x.applier.Writer.Release(t.Context()))
	x.applier.Writer.Close()
	require.Error(t, x.applier.Apply(t.Context(), batch(parent(4))))
	spans = recorder.Ended()
	require.Len(t, spans, 4)
	require.Equal(t, "Error", spans[3].Status().Code.String())
	require.Empty(t, spans[3].Status().Description)
}
