package stream_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
)

// TestRange reads parts of a stream with gaps. Each read ends, even if the last messages of its
// part were erased.
func TestRange(t *testing.T) {
	t.Parallel()
	s, js := serve(t)
	require.NoError(t, openWriter(t, js).Append(t.Context(), numbered(1, 2500)))
	erase(t, js, 7, 8, 1500, 2498, 2499)
	read := func(ctx context.Context, from, to uint64) (got []uint64, err error) {
		for batch, err := range stream.Range(ctx, js, from, to) {
			if err != nil {
				return got, err
			}
			require.NotEmpty(t, batch)
			for _, m := range batch {
				got = append(got, m.Seq)
			}
		}
		return got, nil
	}
	for name, c := range map[string]struct {
		from, to uint64
		want     []uint64
	}{
		"the whole":                {1, 2500, upTo(1, 2500, 7, 8, 1500, 2498, 2499)},
		"a part":                   {100, 1600, upTo(100, 1600, 1500)},
		"one":                      {2500, 2500, []uint64{2500}},
		"none":                     {5, 4, nil},
		"an end that was erased":   {2400, 2499, upTo(2400, 2497)},
		"only what was erased":     {7, 8, nil},
		"more than the stream has": {2490, 3000, []uint64{2490, 2491, 2492, 2493, 2494, 2495, 2496, 2497, 2500}},
	} {
		got, err := read(within(t, patience), c.from, c.to)
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}

	for batch, err := range stream.Range(t.Context(), js, 1, 2500) {
		require.NoError(t, err)
		require.Equal(t, uint64(1), batch[0].Seq)
		break // stop reading
	}
	stop := errors.New("stopped by the test")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	for _, err := range stream.Range(ctx, js, 1, 2500) {
		cancel(stop)
		if err != nil {
			require.ErrorIs(t, err, stop)
		}
	}
	_, err := read(t.Context(), 2502, 3000)
	require.ErrorIs(t, err, stream.ErrBehind)

	info, err := js.Stream(t.Context(), stream.Posts)
	require.NoError(t, err)
	require.NoError(t, info.Purge(t.Context(), jetstream.WithPurgeSequence(100)))
	_, err = read(t.Context(), 1, 200)
	require.ErrorIs(t, err, stream.ErrTrimmed)

	// Range waits for a restarting server.
	var got []uint64
	for batch, err := range stream.Range(within(t, patience), js, 100, 2500) {
		require.NoError(t, err)
		if len(got) == 0 {
			s.Shutdown()
			s.Restart(t)
		}
		for _, m := range batch {
			got = append(got, m.Seq)
		}
	}
	require.Equal(t, upTo(100, 2500, 1500, 2498, 2499), got)
}
