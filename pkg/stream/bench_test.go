package stream_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkAppend and BenchmarkRead move one event per iteration, in batches like ingest and the
// indexer.
func BenchmarkAppend(b *testing.B) {
	_, js := serve(b)
	w := openWriter(b, js)
	b.ResetTimer()
	for done := 0; done < b.N; {
		n := min(1000, b.N-done)
		require.NoError(b, w.Append(b.Context(), numbered(done+1, n)))
		done += n
	}
}

func BenchmarkRead(b *testing.B) {
	_, js := serve(b)
	w := openWriter(b, js)
	for done := 0; done < b.N; done += 1000 {
		require.NoError(b, w.Append(b.Context(), numbered(done+1, 1000)))
	}
	b.ResetTimer()
	r := openReader(b, js, 1)
	for done := 0; done < b.N; {
		batch, err := r.Next(b.Context(), 1000, 0)
		require.NoError(b, err)
		done += len(batch)
	}
}
