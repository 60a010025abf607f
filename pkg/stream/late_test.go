package stream_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// serveCluster starts three servers with the streams on each of them.
func serveCluster(t *testing.T) []*natstest.TestServer {
	t.Helper()
	servers := natstest.Cluster(t, 3)
	require.NoError(t, stream.Ensure(within(t, patience), servers[0].JetStream(t), stream.Config{Replicas: 3}))
	return servers
}

// late returns a connection to the server that leads a stream, and one to another server, whose
// replica now lags: a direct get there does not find message seq, which put stored last.
func late(t *testing.T, servers []*natstest.TestServer, name string, put func(jetstream.JetStream)) (leader, behind jetstream.JetStream, seq uint64) {
	t.Helper()
	var follower *natstest.TestServer
	for i, s := range servers {
		js := s.JetStream(t)
		st, err := js.Stream(within(t, patience), name)
		require.NoError(t, err)
		if st.CachedInfo().Cluster.Leader == fmt.Sprintf("natstest%d", i+1) {
			leader = js
		} else {
			behind, follower = js, s
		}
	}
	require.NotNil(t, leader, "there must be a leader")
	poll.Until(t, patience, func() (bool, string) {
		catchUp := follower.MakeLate(t, name)
		put(leader)
		st, err := behind.Stream(within(t, patience), name)
		require.NoError(t, err)
		require.True(t, st.CachedInfo().Config.AllowDirect)
		seq = st.CachedInfo().State.LastSeq
		if _, err = st.GetMsg(t.Context(), seq); errors.Is(err, jetstream.ErrMsgNotFound) {
			return true, ""
		}
		// A new replica needs some time before it answers.
		catchUp()
		return false, fmt.Sprintf("direct get of %d: %v", seq, err)
	})
	return leader, behind, seq
}

// Every read of a single message is answered by the leader if the nearest replica lacks the newest
// message.
func TestLateReplica(t *testing.T) {
	t.Parallel()
	servers := serveCluster(t)
	t.Run("events", func(t *testing.T) {
		n := 0
		_, behind, last := late(t, servers, stream.Posts, func(js jetstream.JetStream) {
			require.NoError(t, openWriter(t, js).Append(within(t, patience), numbered(n+1, 2)))
			n += 2
		})
		msg, err := stream.GetMessage(t.Context(), behind, last)
		require.NoError(t, err)
		require.NotNil(t, msg, "a late message must not count as erased")
		require.Equal(t, "posts.delete", msg.Subject)
		require.NotEmpty(t, msg.Header.Get(stream.BatchHeader))
		require.NotZero(t, msg.Time)
		has, err := stream.HasMessage(t.Context(), behind, last, last)
		require.NoError(t, err)
		require.True(t, has)
		require.ErrorIs(t, stream.CheckSource(t.Context(), behind, last, sourceOf(n+1)), stream.ErrReplaced)
		require.Equal(t, sourceOf(n), openWriter(t, behind).ResumeAt(), "ingest must not go back")

		e, err := stream.OpenEraser(t.Context(), behind)
		require.NoError(t, err)
		before, err := e.StoredBefore(t.Context(), time.Now().Add(time.Hour), 1, last)
		require.NoError(t, err)
		require.Equal(t, last, before)
		other, err := e.EraseSame(t.Context(), last-1, []byte("another"))
		require.NoError(t, err)
		require.True(t, other, "a late message must not count as already erased")

		require.NoError(t, e.Erase(t.Context(), last-1))
		msg, err = stream.GetMessage(t.Context(), behind, last-1)
		require.NoError(t, err)
		require.Nil(t, msg)
	})
	t.Run("dead letters", func(t *testing.T) {
		var reason string
		_, behind, _ := late(t, servers, stream.DeadLetters, func(js jetstream.JetStream) {
			reason += "x"
			require.NoError(t, stream.PutDeadLetter(t.Context(), js, stream.DeadLetter{Seq: 7, Reason: reason, At: time.Now(), Payload: []byte("x")}))
		})
		d, err := stream.GetDeadLetter(t.Context(), behind, 7)
		require.NoError(t, err)
		require.Equal(t, reason, d.Reason)
		require.NoError(t, stream.EraseDeadLetter(t.Context(), behind, 7))
		_, err = stream.GetDeadLetter(t.Context(), behind, 7)
		require.ErrorIs(t, err, stream.ErrNoDeadLetter)
	})
	t.Run("ingest log", func(t *testing.T) {
		var want []string
		_, behind, _ := late(t, servers, stream.IngestLog, func(js jetstream.JetStream) {
			want = append(want, fmt.Sprint("entry ", len(want)))
			require.NoError(t, stream.PutLog(t.Context(), js, stream.LogEntry{What: want[len(want)-1]}))
		})
		var got []string
		require.NoError(t, stream.Log(t.Context(), behind, 1000, func(e stream.LogEntry) error { got = append(got, e.What); return nil }))
		require.Equal(t, want, got)
	})
	t.Run("lease", func(t *testing.T) {
		var first *contender
		_, behind, _ := late(t, servers, "KV_"+stream.Leases, func(js jetstream.JetStream) {
			if first != nil {
				first.finish(t)
			}
			first = contend(t.Context(), stream.NewLease(js, "first"))
			first.requireHeld(t)
		})
		second := stream.NewLease(behind, "second")
		waits := waitsOf(second)
		heir := contend(t.Context(), second)
		require.Equal(t, "held by first", <-waits)
		first.finish(t)
		heir.requireHeld(t)
		heir.finish(t)
	})
}

// The leader can return any message that the server accepts.
func TestGetLargestMessage(t *testing.T) {
	t.Parallel()
	_, js := serve(t)
	w := openWriter(t, js)
	ev := big(t, 1, w.MaxPayload())
	require.NoError(t, w.Append(within(t, patience), []*event.Event{ev}))
	msg, err := stream.GetMessage(t.Context(), js, 1)
	require.NoError(t, err)
	require.Len(t, msg.Data, w.MaxPayload())
}

// TestReadAfterWriteOnCluster reads new messages at each server of a cluster, where a direct get
// may not find them.
func TestReadAfterWriteOnCluster(t *testing.T) {
	t.Parallel()
	servers := serveCluster(t)
	var at []jetstream.JetStream
	var direct []jetstream.Stream
	for _, s := range servers {
		js := s.JetStream(t)
		posts, err := js.Stream(t.Context(), stream.Posts)
		require.NoError(t, err)
		at, direct = append(at, js), append(direct, posts)
	}
	w := openWriter(t, at[0])
	missed := 0
	for n := uint64(1); n <= 300; n++ {
		require.NoError(t, w.Append(within(t, patience), numbered(int(n), 1)))
		for i, js := range at {
			if _, err := direct[i].GetMsg(t.Context(), n); errors.Is(err, jetstream.ErrMsgNotFound) {
				missed++
			}
			msg, err := stream.GetMessage(t.Context(), js, n)
			require.NoError(t, err)
			require.NotNil(t, msg, "message %d at server %d", n, i+1)
		}
	}
	t.Logf("direct gets missed %d of %d messages", missed, 3*300)
}
