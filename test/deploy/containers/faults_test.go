package containers_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/simnet"
)

var (
	faultSeed = flag.Uint64("faults.seed", 1, "the seed of TestFaults' traffic")
	faultOnly = flag.String("faults.only", "", "faults on the containers whose name begins so, and no rolling restart")
	faultKind = flag.String("faults.kind", "", "no other faults than killed, paused or disconnected")
	rounds    = flag.Int("faults.rounds", 1, "how often all faults are done")
	sample    = flag.Bool("faults.sample", false, "one fault a container and round, the kinds in turn, instead of all of them")
)

const (
	// faultLength is how long a container is frozen or disconnected: longer than a lease, so that
	// another takes over.
	faultLength = 8 * time.Second
	// settleLimit bounds the time until the API shows a post after a fault.
	settleLimit = 2 * time.Minute
	// shown is the number of failures that are printed.
	shown = 3
	// trafficRate is in actions per second.
	trafficRate = 20
)

// bench is a stack that reads a network of the test, which therefore knows what the API must
// answer.
type bench struct {
	*stack
	net  *simnet.Network
	host *simnet.Jetstream
	stop func() // stops the traffic
	sum  figures
}

// figures are the results of a run.
type figures struct {
	restarted, reloaded int
	done                map[string]int // faults by kind
	// requests are those with a working proxy, alone those during a fault of the proxy itself:
	// there is only one, without a replacement.
	requests, alone requests
}

func (f figures) String() string {
	kinds := fmt.Sprintf("%d restarted, %d reloaded", f.restarted, f.reloaded)
	for _, kind := range faults {
		kinds += fmt.Sprintf(", %d %s", f.done[kind.name], kind.name)
	}
	return fmt.Sprintf("containers: %s; %s; during faults of the proxy itself: %s", kinds, f.requests, f.alone)
}

// TestFaults starts the cluster profile on a simulated network, with readers paging all the time.
// It restarts every container in turn, like an upgrade: no request may fail. Then it kills, freezes
// and disconnects each one, and finally compares all answers of the API with the fold of the
// network's log. Requests may fail only while the proxy itself is unavailable.
func TestFaults(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with: go test -run '^TestFaults$' -faults.seed=%d", *faultSeed)
		}
	})
	b := newBench(t)
	b.stack = up(t, []string{"cluster"}, map[string]string{
		"TAGSTREAM_JETSTREAM_HOSTS": b.host.URL(), "TAGSTREAM_JETSTREAM_START": "archive",
	})
	b.awaitHealthy(t)
	b.settle(t)
	b.startTraffic()
	if *faultOnly == "" {
		t.Run("rolling restart", b.testRollingRestart)
	}
	if !t.Failed() {
		t.Run("faults", b.testFaults)
	}
	b.stop()
	b.settle(t)
	log := b.net.Log()
	want, err := model.FromNetwork(log)
	require.NoError(t, err)
	model.CheckHTTP(t, b.url, want)
	t.Logf("%s; %d events, differences: 0", b.sum, len(log))
}

func newBench(t *testing.T) *bench {
	t.Helper()
	engine := needEngine(t)
	b := &bench{}
	var err error
	b.net, err = simnet.New(simnet.Config{Seed: *faultSeed, Accounts: 40})
	require.NoError(t, err)
	// Only posts: an archive has no record of accounts that were hidden before.
	require.NoError(t, simnet.Traffic{Count: 1000, Seed: *faultSeed, TagsOnly: true}.Run(t.Context(), b.net))
	binary, err := simnet.BuildJetstream(t.Context(), "")
	require.NoError(t, err)
	b.host, err = b.net.StartJetstream(t.Context(), simnet.JetstreamConfig{
		Binary: binary, DataDir: t.TempDir(), Addr: net.JoinHostPort(gateway(t, engine), fmt.Sprint(freePort(t))),
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := b.host.Stop(); err != nil {
			t.Errorf("stop the Jetstream server: %v", err)
		}
	})
	return b
}

// gateway returns this machine's address as seen by containers.
func gateway(t *testing.T, engine *client.Client) string {
	t.Helper()
	bridge, err := engine.NetworkInspect(t.Context(), "bridge", client.NetworkInspectOptions{})
	require.NoError(t, err)
	for _, c := range bridge.Network.IPAM.Config {
		if c.Gateway.Is4() {
			return c.Gateway.String()
		}
		if c.Subnet.Addr().Is4() { // like the engine
			return c.Subnet.Masked().Addr().Next().String()
		}
	}
	t.Fatal("the engine's network bridge has no gateway")
	return ""
}

// startTraffic starts live traffic; b.stop stops it.
func (b *bench) startTraffic() {
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- simnet.Traffic{Rate: trafficRate, Seed: *faultSeed + 1}.Run(ctx, b.net) }()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(b.t, <-ended)
	}
	b.t.Cleanup(b.stop)
}

// settle returns when the API shows a new post, and how long that took.
func (b *bench) settle(t *testing.T) time.Duration {
	t.Helper()
	begun := time.Now()
	require.NoError(t, b.net.Await(t.Context(), b.host))
	did, err := b.net.CreateAccount()
	require.NoError(t, err)
	p, err := b.net.CreatePost(did, "", simnet.NewPost(b.net.Now(), "the end", "settled"))
	require.NoError(t, err)
	poll.Until(t, settleLimit, func() (bool, string) {
		status, body := get(t.Context(), fmt.Sprintf("%s/v1/posts/%s/%s", b.url, p.DID, p.Rkey))
		if status == 200 || time.Since(begun) < settleLimit {
			return status == 200, ""
		}
		_, condition := get(t.Context(), b.url+"/v1/status")
		return false, fmt.Sprint(status, " ", body, condition)
	})
	return time.Since(begun)
}

// testRollingRestart restarts one container after the other, each when the previous one is healthy.
// The proxy only reloads its configuration: there is only one, with the public port.
func (b *bench) testRollingRestart(t *testing.T) {
	l := startLoad(t, b.url)
	for _, x := range b.boxes() {
		before := l.counts()
		begun := time.Now()
		if x.service == "proxy" {
			// Not by the engine: it would not restart a container that it has signaled.
			code, says := x.exec(t, "sh", "-c", "kill -USR2 1")
			require.Zero(t, code, says)
			b.sum.reloaded++
		} else {
			x.restart(t)
			b.sum.restarted++
		}
		x.awaitHealthy(t)
		b.awaitReplicas(t)
		b.settle(t)
		t.Logf("%-20s restarted, healthy and settled in %5.1f s; %s", x.name, time.Since(begun).Seconds(), l.counts().since(before))
	}
	sum, slowest := l.end()
	b.sum.requests = b.sum.requests.plus(sum)
	t.Logf("%d restarted, %d reloaded; %s, the slowest took %.1f s", b.sum.restarted, b.sum.reloaded, sum, slowest.Seconds())
	require.Empty(t, sum.failed)
	require.Empty(t, sum.again, "a stopping api must finish its answers")
	require.Greater(t, sum.asked, 1000, "too few requests")
}

// fault is something that happens to a container.
type fault struct {
	name string
	do   func(t testing.TB, x *box)
}

var faults = []fault{
	{"killed", func(t testing.TB, x *box) { x.kill(t) }},
	{"paused", func(t testing.TB, x *box) { x.pause(t, faultLength) }},
	{"disconnected", func(t testing.TB, x *box) { x.disconnect(t, faultLength) }},
}

// testFaults causes each fault in each container, and then in the server that leads the stream.
func (b *bench) testFaults(t *testing.T) {
	l := startLoad(t, b.url)
	b.sum.done = map[string]int{}
	turn := 0
	strike := func(f fault, x *box, why string) {
		if !strings.HasPrefix(x.name, *faultOnly) || *faultKind != "" && f.name != *faultKind {
			return
		}
		before := l.counts()
		begun := time.Now()
		f.do(t, x)
		back := time.Now()
		x.awaitHealthy(t)
		b.awaitReplicas(t)
		b.settle(t)
		b.sum.done[f.name]++
		here := l.counts().since(before)
		t.Logf("%-20s %-12s %s: settled %5.1f s after its start, %5.1f s after its end; %s",
			x.name, f.name, why, time.Since(begun).Seconds(), time.Since(back).Seconds(), here)
		for _, line := range slices.Concat(here.again, here.failed)[:min(len(here.again)+len(here.failed), shown)] {
			t.Log("    ", line)
		}
		if x.service == "proxy" {
			b.sum.alone = b.sum.alone.plus(here)
			return
		}
		b.sum.requests = b.sum.requests.plus(here)
		if len(here.failed) > 0 {
			t.Errorf("%d requests failed while %s was %s", len(here.failed), x.name, f.name)
		}
	}
	// all causes the faults of a round in one container.
	all := func(choose func() *box, why string) {
		kinds := faults
		if *sample {
			kinds = faults[turn%len(faults):][:1]
			turn++
		}
		for _, f := range kinds {
			strike(f, choose(), why)
		}
	}
	for range *rounds {
		for _, x := range b.boxes() {
			all(func() *box { return x }, "")
		}
		all(func() *box { return b.leader(t) }, "leading the stream")
	}
	_, slowest := l.end()
	t.Logf("the slowest request took %.1f s", slowest.Seconds())
	require.NotEmpty(t, b.sum.done)
	b.awaitHealthy(t)
}

// leader returns the NATS server that leads the stream of events.
func (b *bench) leader(t *testing.T) *box {
	t.Helper()
	nc := b.nats("operator")
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	name := ""
	poll.NoError(t, healthLimit, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), engineLimit)
		defer cancel()
		s, err := js.Stream(ctx, "POSTS")
		if err != nil {
			return err
		}
		info := s.CachedInfo()
		require.Equal(t, jetstream.NoCompression, info.Config.Compression, "replicas must not be compressed")
		name = info.Cluster.Leader
		if name == "" {
			return fmt.Errorf("the stream has no leader")
		}
		return nil
	})
	return b.box(name)
}
