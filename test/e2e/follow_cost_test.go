//go:build linux

package e2e_test

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
	"github.com/tagstream/tagstream/test/process"
)

var followIdle = flag.Int("follow.idle", 300, "how many idle connections TestFollowersCost opens; its bounds on memory, CPU and delay hold from 5000 on")

const (
	// The allowed cost of the idle connections, in bytes and in CPU seconds per second.
	followMemory = 100 << 20
	followCPU    = 0.05
	// followDelay is the 99th percentile of the time from a commit to a follower.
	followDelay = 300 * time.Millisecond
	// followWatched is how long they are measured: each receives a comment every 15 s.
	followWatched = time.Minute
)

// TestFollowersCost measures the cost of idle connections of /v1/stream for the api, and how long
// changes meanwhile take to reach followers of another list. To run it in full:
//
//	go test ./test/e2e -run TestFollowersCost -v -follow.idle=5000
func TestFollowersCost(t *testing.T) {
	t.Parallel()
	whole := *followIdle >= 5000
	b := newIndexBench(t, natstest.Server(t))
	writer := storetest.Leader(t, b.owner)
	listen := freeAddr(t)
	api := running(t, &process.Program{Name: "api", Path: os.Args[0], Env: []string{followChild + "=api", "DATABASE=" + b.reader.URL, "LISTEN=" + listen}})
	awaitAnswer(t, "http://"+listen+"/v1/status")
	open := func(tag string) *bufio.Reader {
		conn, err := net.Dial("tcp", listen)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		_, err = fmt.Fprintf(conn, "GET /v1/stream?tags=%s HTTP/1.1\r\nHost: x\r\n\r\n", tag)
		require.NoError(t, err)
		in := bufio.NewReaderSize(conn, 1024)
		for {
			line, err := in.ReadString('\n')
			require.NoError(t, err)
			if strings.HasPrefix(line, "id: ") {
				return in
			}
		}
	}
	before, err := api.OwnMemory()
	require.NoError(t, err)
	for i := range *followIdle {
		open(fmt.Sprint("idle", i%20))
	}
	busy, err := process.CPU(api.PID())
	require.NoError(t, err)
	began := time.Now()
	watched := followWatched
	if !whole {
		watched /= 30
	}
	<-time.After(watched)
	worked, err := process.CPU(api.PID())
	require.NoError(t, err)
	cpu := (worked - busy).Seconds() / time.Since(began).Seconds()
	memory, err := api.OwnMemory()
	require.NoError(t, err)
	memory -= before
	t.Logf("%d idle connections: %.1f MiB, %.1f%% of a core", *followIdle, float64(memory)/(1<<20), 100*cpu)

	const changes, followers = 300, 20
	type arrival struct {
		n  int
		at time.Time
	}
	arrivals := make(chan arrival, changes*followers)
	var group sync.WaitGroup
	for range followers {
		in := open("busy")
		group.Go(func() {
			for n := 0; n < changes; {
				line, err := in.ReadString('\n')
				if err != nil {
					t.Error(err)
					return
				}
				if _, rest, found := strings.Cut(line, `"did":"did:plc:n`); found && strings.HasPrefix(line, "data: ") {
					number, _, _ := strings.Cut(rest, `"`)
					i, err := strconv.Atoi(number)
					if err != nil {
						t.Error(err)
						return
					}
					arrivals <- arrival{i, time.Now()}
					n++
				}
			}
		})
	}
	var committed [changes]time.Time
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for i := range changes {
		<-pace.C
		require.NoError(t, storetest.Add(t, writer, fmt.Sprint("did:plc:n", i), "busy", uint64(i+1)))
		committed[i] = time.Now()
	}
	group.Wait()
	close(arrivals)
	var delays []time.Duration
	for a := range arrivals {
		delays = append(delays, max(0, a.at.Sub(committed[a.n])))
	}
	require.Len(t, delays, changes*followers)
	slices.Sort(delays)
	at := func(share float64) time.Duration {
		return delays[int(share*float64(len(delays)-1))].Round(time.Millisecond)
	}
	t.Logf("delay of %d changes to %d followers: median %v, 99%% %v, most %v", changes, followers, at(.5), at(.99), at(1))
	if whole {
		require.Less(t, memory, int64(followMemory))
		require.Less(t, cpu, followCPU)
		require.Less(t, at(.99), followDelay)
	}
}
