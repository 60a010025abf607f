package e2e_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/test/model"
)

// A stream holds messages of every released version and of a future one. The released ones are
// folded in order. The future ones become dead letters, delay nothing, and stay unchanged if a
// program that cannot read them redrives them.
//
// Invariant: messages of a future version delay nothing and wait unchanged for a program that reads
// them. See also TestRedriveInOrder.
func TestVersions(t *testing.T) {
	t.Parallel()
	b, url := newIndex(t)
	stored, err := filepath.Glob("../../pkg/event/testdata/v*/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, stored)
	var history [][]byte
	present := model.GenerateMessages(5, 300)
	var future []uint64
	for i, m := range present {
		history = append(history, m)
		if i%20 != 0 {
			continue
		}
		old, err := os.ReadFile(stored[(i/20)%len(stored)])
		require.NoError(t, err)
		history = append(history, bytes.TrimSpace(old))
		coming := bytes.Replace(m, []byte(`"v":1`), []byte(`"v":3`), 1)
		if i%40 == 0 { // one with other meanings of the same names
			coming = []byte(`{"v":3,"kind":["create"],"source":"https://host 7","tags":{"art":1}}`)
		}
		if _, err := event.Decode(coming); err == nil { // the message is not valid
			continue
		}
		history = append(history, coming)
	}
	want := model.New()
	for i, m := range history {
		want.Apply(uint64(i+1), m)
		if bytes.Contains(m, []byte(`"v":3,`)) || bytes.Contains(m, []byte(`"v":999`)) { // those of the generator
			future = append(future, uint64(i+1))
		}
	}
	require.Greater(t, len(future), 5)
	b.indexer(50)
	b.await(url, b.publish(history...))
	model.CheckHTTP(t, url, want)
	for _, seq := range future {
		letter, err := stream.GetDeadLetter(t.Context(), b.js, seq)
		require.NoError(t, err)
		require.Equal(t, "unknown_version", letter.Reason)
		require.Equal(t, history[seq-1], letter.Payload, "it must stay unchanged for a program that can read it")
	}
	before := b.letters()
	tried := b.redrive(indexer.RedriveConfig{Reason: "unknown_version"})
	require.Len(t, tried, len(future))
	for seq, err := range tried {
		require.ErrorIs(t, err, event.ErrUnknownVersion, seq)
	}
	require.Equal(t, before, b.letters())
	model.CheckHTTP(t, url, want)
}
