package natstest_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// reachLimit bounds one wait for a server that was restarted.
const reachLimit = time.Minute

func TestServer(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]natstest.Option{
		"in process": nil,
		"listening":  {natstest.Listen()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			s := natstest.Server(t, options...)
			t.Logf("ready in %v", time.Since(start))
			js := s.JetStream(t)
			_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "POSTS", Subjects: []string{"posts.>"}})
			require.NoError(t, err)
			_, err = js.Publish(t.Context(), "posts.a", []byte("before"))
			require.NoError(t, err)

			start = time.Now()
			s.Restart(t)
			t.Logf("restarted in %v", time.Since(start))
			poll.NoError(t, reachLimit, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := js.Publish(ctx, "posts.b", []byte("after"))
				return err
			})
			stream, err := js.Stream(t.Context(), "POSTS")
			require.NoError(t, err)
			require.GreaterOrEqual(t, stream.CachedInfo().State.Msgs, uint64(2), "acknowledged before the restart")
		})
	}
}

func TestListenKeepsItsPort(t *testing.T) {
	t.Parallel()
	s := natstest.Server(t, natstest.Listen())
	url := s.URL()
	ping := func() error {
		conn, err := nats.Connect(url)
		if err != nil {
			return err
		}
		defer conn.Close()
		return conn.Flush()
	}
	require.NoError(t, ping())
	s.Shutdown()
	s.Shutdown()
	require.Error(t, ping(), "it has stopped")
	s.Restart(t)
	require.Equal(t, url, s.URL())
	require.NoError(t, ping())
}

func TestWithoutListenThereIsNoPort(t *testing.T) {
	t.Parallel()
	require.Empty(t, natstest.Server(t).URL())
}

func TestMaxStore(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	js := natstest.Server(t, natstest.MaxStore(limit)).JetStream(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "POSTS", Subjects: []string{"posts.>"}, MaxBytes: 2 * limit,
	})
	var apiError *jetstream.APIError
	require.ErrorAs(t, err, &apiError)
}
