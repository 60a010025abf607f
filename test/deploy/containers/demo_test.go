package containers_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// maxImage is the maximum size of our programs' images.
const maxImage = 30_000_000

// TestDemo starts the demo profile, like "PROFILES=demo make up", requests posts, and tries what
// its parts must not be able to do.
func TestDemo(t *testing.T) {
	s := up(t, []string{"demo"}, map[string]string{"DEMO_RATE": "50", "DEMO_BACKLOG": "2000"})
	s.awaitHealthy(t)
	t.Run("a page of #art", func(t *testing.T) { testPage(t, s) })
	t.Run("containers", func(t *testing.T) { testHardened(t, s) })
	t.Run("images", func(t *testing.T) { testImages(t, s) })
	t.Run("servers", func(t *testing.T) { testServers(t, s) })
	t.Run("networks", func(t *testing.T) { testNetworks(t, s) })
	t.Run("NATS users", func(t *testing.T) { testUsers(t, s) })
	t.Run("Postgres roles", func(t *testing.T) { testRoles(t, s) })
	t.Run("proxy", func(t *testing.T) { testProxy(t, s) })
	t.Run("commands", func(t *testing.T) { testCommands(t, s) })
	t.Run("upgrade", func(t *testing.T) { testUpgrade(t, s) })
}

// testPage waits for a full page, and for traffic to continue.
func testPage(t *testing.T, s *stack) {
	type page struct {
		Posts []struct {
			URI    string
			Tags   []string
			SortAt time.Time
		}
		Page struct{ HasNext bool }
	}
	newest := time.Time{}
	pages := 0
	poll.Until(t, time.Minute, func() (bool, string) {
		status, body := get(t.Context(), s.url+"/v1/posts?tags=art&limit=20")
		var p page
		if status != 200 || json.Unmarshal([]byte(body), &p) != nil || len(p.Posts) < 20 {
			return false, fmt.Sprint(status, " ", body)
		}
		if at := p.Posts[0].SortAt; at.After(newest) {
			newest = at
			pages++
		}
		for _, post := range p.Posts {
			require.Contains(t, post.Tags, "art", post.URI)
		}
		require.True(t, p.Page.HasNext)
		return pages >= 3, fmt.Sprintf("the newest is from %s", newest)
	})
}

// testHardened checks the settings of each container.
func testHardened(t *testing.T, s *stack) {
	for _, b := range s.boxes() {
		c := b.inspect(t)
		require.NotContains(t, []string{"", "0", "root", "0:0"}, c.Config.User, "%s runs as root", b.name)
		require.True(t, c.HostConfig.ReadonlyRootfs, "%s can write to its root", b.name)
		require.Equal(t, []string{"ALL"}, c.HostConfig.CapDrop, b.name)
		require.Empty(t, c.HostConfig.CapAdd, b.name)
		require.False(t, c.HostConfig.Privileged, b.name)
		require.Contains(t, c.HostConfig.SecurityOpt, "no-new-privileges:true", b.name)
		require.Equal(t, container.RestartPolicyUnlessStopped, c.HostConfig.RestartPolicy.Name, b.name)
		require.Positive(t, c.HostConfig.Memory, "%s has no memory limit", b.name)
		require.Positive(t, *c.HostConfig.PidsLimit, "%s has no process limit", b.name)
		for _, line := range c.Config.Env {
			require.NotContains(t, line, "PASSWORD=", "%s has a secret in its environment", b.name)
		}
		for _, m := range c.Mounts {
			if m.Type == "bind" {
				require.False(t, m.RW, "%s can write to %s", b.name, m.Destination)
			}
		}
	}
}

// testImages checks the images of our programs.
func testImages(t *testing.T, s *stack) {
	for _, name := range []string{"ingest", "indexer", "api", "secrets"} {
		img, err := s.engine.ImageInspect(t.Context(), image(name))
		require.NoError(t, err)
		require.Less(t, img.Size, int64(maxImage), name)
		for _, label := range []string{"title", "description", "version", "licenses", "source"} {
			require.NotEmpty(t, img.Config.Labels["org.opencontainers.image."+label], "%s: %s", name, label)
		}
		t.Logf("image %s: %.1f MB", name, float64(img.Size)/1e6)
		if name == "secrets" {
			continue
		}
		require.Equal(t, []string{"CMD", "/" + name, "health"}, img.Config.Healthcheck.Test)
		x := s.box(name)
		code, says := x.exec(t, "/bin/sh", "-c", "true")
		require.NotZero(t, code, "%s has a shell", name)
		require.Contains(t, says, "no such file")
		roots, err := s.engine.CopyFromContainer(t.Context(), x.id,
			client.CopyFromContainerOptions{SourcePath: "/etc/ssl/certs/ca-certificates.crt"})
		require.NoError(t, err, name)
		require.Greater(t, roots.Stat.Size, int64(100_000), "%s lacks root certificates", name)
		require.NoError(t, roots.Content.Close())
	}
}

// testServers checks the settings of NATS and Postgres that the index relies on.
func testServers(t *testing.T, s *stack) {
	code, says := s.box("nats").exec(t, "wget", "-q", "-O", "-", "http://127.0.0.1:8222/varz")
	require.Zero(t, code, says)
	var varz struct {
		JetStream struct {
			Config struct {
				SyncAlways bool `json:"sync_always"`
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(says), &varz))
	require.True(t, varz.JetStream.Config.SyncAlways, "acknowledged messages are not synced to disk: %s", says)

	for sql, want := range map[string]string{
		"SHOW server_version_num": `^17`,
		"SHOW autovacuum_naptime": `^10s$`,
		"SHOW data_checksums":     `^on$`,
		"SHOW fsync":              `^on$`,
		"SHOW synchronous_commit": `^on$`,
		"SELECT reloptions FROM pg_class WHERE oid = 'tagstream.post_tags'::regclass": `autovacuum_vacuum_insert_scale_factor=0.005`,
	} {
		code, says := s.box("postgres").exec(t, "psql", "--no-psqlrc", "-At", "--dbname=tagstream", "-c", sql)
		require.Zero(t, code, says)
		require.Regexp(t, want, strings.TrimSpace(says), sql)
	}
}

// testNetworks tries, from inside each program's network, to reach what the program must not reach.
func testNetworks(t *testing.T, s *stack) {
	for _, c := range []struct {
		from, to string
		port     int
		reached  bool
	}{
		{from: "ingest", to: "nats", port: 4222, reached: true},
		{from: "ingest", to: "postgres", port: 5432},
		{from: "indexer", to: "nats", port: 4222, reached: true},
		{from: "indexer", to: "postgres", port: 5432, reached: true},
		{from: "indexer", to: "upstream", port: 6008},
		{from: "api", to: "postgres", port: 5432, reached: true},
		{from: "api", to: "nats", port: 4222},
		{from: "api", to: "upstream", port: 6008},
		{from: "proxy", to: "api", port: 8080, reached: true},
		{from: "proxy", to: "postgres", port: 5432},
		{from: "proxy", to: "nats", port: 4222},
	} {
		t.Run(c.from+" to "+c.to, func(t *testing.T) {
			// By address, so that it does not fail only because a name is unknown.
			addresses := []string{}
			for _, end := range s.box(c.to).inspect(t).NetworkSettings.Networks {
				addresses = append(addresses, end.IPAddress.String())
			}
			reached := false
			for _, address := range addresses {
				reached = s.connects(t, c.from, address, c.port) || reached
			}
			require.Equal(t, c.reached, reached)
		})
	}
}

// testProxy requests what must not be public, and then exceeds the limits of a proxy without a
// backend.
func testProxy(t *testing.T, s *stack) {
	for _, path := range []string{"/v1/admin/tags", "/metrics", "/readyz", "/debug/pprof/"} {
		status, body := get(t.Context(), s.url+path)
		require.Equal(t, 404, status, "%s: %s", path, body)
	}
	const allowed = 5
	lone, err := testcontainers.Run(t.Context(), image("proxy"),
		testcontainers.WithEnv(map[string]string{"RATE_PER_10S": fmt.Sprint(allowed)}),
		testcontainers.WithWaitStrategy(wait.ForLog("Loading success")))
	testcontainers.CleanupContainer(t, lone)
	require.NoError(t, err)
	address, err := lone.ContainerIP(t.Context())
	require.NoError(t, err)
	codes := map[string]int{}
	for range 2 * allowed {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+":8080/v1/status", nil)
		require.NoError(t, err)
		answer, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		var problem struct {
			Status int
			Code   string
		}
		require.NoError(t, json.NewDecoder(answer.Body).Decode(&problem))
		require.NoError(t, answer.Body.Close())
		require.Equal(t, answer.StatusCode, problem.Status)
		require.Equal(t, []string{"*"}, answer.Header.Values("Access-Control-Allow-Origin"), "web pages must be able to read it")
		codes[problem.Code]++
	}
	require.Equal(t, map[string]int{"unavailable": allowed, "rate_limited": allowed}, codes)
}

// testCommands runs operators' commands as docs/operations.md says.
func testCommands(t *testing.T, s *stack) {
	for _, c := range []struct{ command, says string }{
		{"ingest log --limit 3", "connected"},
		{"ingest reconcile --dry-run", ""},
		{"indexer migrate", "schema is current"},
		{"indexer dlq list", ""},
		{"indexer verify --alone", `"findings":0`},
		{"indexer rebuild", ""},
		{"indexer verify", `"findings":0`},
	} {
		cmd := exec.CommandContext(t.Context(), "deploy/stack", append([]string{"run"}, strings.Fields(c.command)...)...)
		cmd.Dir, cmd.Env = root, s.env
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", c.command, out)
		require.Contains(t, string(out), c.says, c.command)
	}
	s.awaitHealthy(t)
}

// testUpgrade replaces the programs' containers as docs/deployment.md says, while readers page. No
// request may fail.
func testUpgrade(t *testing.T, s *stack) {
	services := []string{"api", "indexer", "ingest"}
	before := map[string]bool{}
	for _, b := range s.boxes() {
		before[b.id] = slices.Contains(services, b.service)
	}
	command := func(profiles ...string) *exec.Cmd {
		roll := exec.CommandContext(t.Context(), "deploy/stack", append([]string{"roll"}, services...)...)
		roll.Dir, roll.Env = root, append(s.env, profiles...)
		return roll
	}
	says, err := command("PROFILES=").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(says), `PROFILES="" lacks what is there: upstream`)
	l := startLoad(t, s.url)
	says, err = command().CombinedOutput()
	require.NoError(t, err, "%s", says)
	sum, _ := l.end()
	t.Log(sum)
	require.Empty(t, sum.failed)
	require.Empty(t, sum.again, "a stopping api must finish its answers")
	s.awaitHealthy(t)
	for _, b := range s.boxes() {
		require.False(t, before[b.id], "%s must be replaced", b.name)
	}
}
