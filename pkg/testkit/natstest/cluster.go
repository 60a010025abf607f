package natstest

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// clusterLimit bounds the forming of a cluster: elections take seconds.
	clusterLimit = 60 * time.Second
	clusterPause = 20 * time.Millisecond
	// clusterAttempt bounds a request, which gets no answer before an election.
	clusterAttempt = time.Second
)

// Cluster starts the servers of one cluster, and returns when streams can be created on it. Each
// ends with the test.
func Cluster(t testing.TB, size int, options ...Option) []*TestServer {
	t.Helper()
	ports := FreePorts(t, size)
	var routes string
	for i, port := range ports {
		if i > 0 {
			routes += ","
		}
		routes += fmt.Sprintf("nats-route://127.0.0.1:%d", port)
	}
	servers := make([]*TestServer, size)
	var starting sync.WaitGroup
	for i, port := range ports {
		node := append([]Option{Listen(), With(func(o *server.Options) {
			o.ServerName = fmt.Sprintf("natstest%d", i+1)
			o.StoreDir = t.TempDir()
			o.Cluster = server.ClusterOpts{Name: "natstest", Host: o.Host, Port: port}
			o.Routes = server.RoutesFromStr(routes)
		})}, options...)
		servers[i] = newServer(t, node...)
		starting.Go(func() { servers[i].start(t) })
		t.Cleanup(servers[i].Shutdown)
	}
	starting.Wait()
	js := servers[0].JetStream(t)
	ctx, cancel := context.WithTimeout(t.Context(), clusterLimit)
	defer cancel()
	for {
		// It is ready when all its members can have a stream.
		attempt, stop := context.WithTimeout(ctx, clusterAttempt)
		_, err := js.CreateStream(attempt, jetstream.StreamConfig{Name: "natstest", Replicas: size})
		if err == nil {
			err = js.DeleteStream(attempt, "natstest")
		}
		stop()
		if err == nil {
			return servers
		}
		select {
		case <-ctx.Done():
			t.Fatalf("natstest: the cluster is not ready within %v: %v", clusterLimit, err)
		case <-time.After(clusterPause):
		}
	}
}

// FreePorts returns ports on which nothing listens at the moment.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("natstest: find a port: %v", err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// MakeLate makes the server's replica of a stream lag: it answers, but stores no new messages,
// until catchUp is called or the test ends. It fails if the server leads the stream.
func (s *TestServer) MakeLate(t testing.TB, stream string) (catchUp func()) {
	t.Helper()
	st, err := s.JetStream(t).Stream(t.Context(), stream)
	if err != nil {
		t.Fatalf("natstest: look up stream %s: %v", stream, err)
	}
	node := s.raftNode(st.CachedInfo().Cluster.RaftGroup)
	if node == nil {
		t.Fatalf("natstest: the server has no replica of %s", stream)
	}
	if err := node.PauseApply(); err != nil {
		t.Fatalf("natstest: make the replica of %s late: %v", stream, err)
	}
	catchUp = sync.OnceFunc(node.ResumeApply)
	t.Cleanup(catchUp)
	return catchUp
}

// raftNode returns the server's member of a group of replicas. Only the server's own tests have
// access otherwise.
func (s *TestServer) raftNode(group string) server.RaftNode {
	running := reflect.ValueOf(s.current()).Elem()
	field := func(name string) unsafe.Pointer { return unsafe.Pointer(running.FieldByName(name).UnsafeAddr()) }
	mu := (*sync.RWMutex)(field("rnMu"))
	mu.RLock()
	defer mu.RUnlock()
	return (*(*map[string]server.RaftNode)(field("raftNodes")))[group]
}
