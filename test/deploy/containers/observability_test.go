package containers_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

const (
	// scrapeLimit bounds the time until Prometheus has scraped every target.
	scrapeLimit = 2 * time.Minute
	// quietFor is how long no alert may fire. It exceeds the delay of most alerts.
	quietFor = 3 * time.Minute
)

// bases returns the names of the base images that .ci/images built, if any.
func bases(t *testing.T) map[string]string {
	t.Helper()
	dir := os.Getenv("IMAGE_CACHE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		require.NoError(t, err)
		dir = filepath.Join(cache, "tagstream-images")
	}
	return readEnv(t, filepath.Join(dir, "images.env"))
}

// TestObservability starts Prometheus and the exporters with the demo, and checks that Prometheus
// reaches every target and that a healthy stack has no alerts. Grafana is left out, since its image
// cannot be built here.
func TestObservability(t *testing.T) {
	engine := needEngine(t)
	settings := bases(t)
	port := freePort(t)
	maps.Copy(settings, map[string]string{"PROMETHEUS_PORT": fmt.Sprint(port), "DEMO_RATE": "20", "DEMO_BACKLOG": "1000"})
	if name := settings["PROMETHEUS_IMAGE"]; name != "" {
		_, err := engine.ImageInspect(t.Context(), name)
		require.NoError(t, err, "make it with .ci/images")
	}
	s := up(t, []string{"demo", "observability"}, settings, "upstream", "nats", "postgres", "migrate", "ingest", "indexer", "api", "proxy", "prometheus", "node-exporter", "postgres-exporter")
	s.awaitHealthy(t)
	testHardened(t, s)

	ask := func(path string, into any) {
		t.Helper()
		status, body := get(t.Context(), fmt.Sprintf("http://127.0.0.1:%d/api/v1/%s", port, path))
		require.Equal(t, 200, status, body)
		require.NoError(t, json.Unmarshal([]byte(body), into))
	}
	poll.Until(t, scrapeLimit, func() (bool, string) {
		var targets struct {
			Data struct {
				ActiveTargets []struct {
					Labels            map[string]string
					Health, LastError string
				}
			}
		}
		ask("targets", &targets)
		var up []string
		for _, target := range targets.Data.ActiveTargets {
			if target.Health == "up" {
				up = append(up, target.Labels["job"])
			}
		}
		slices.Sort(up)
		return slices.Equal(up, []string{"api", "api", "indexer", "ingest", "node", "postgres", "prometheus", "proxy"}), fmt.Sprint(targets)
	})
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	ask("rules", &rules)
	n := 0
	for _, g := range rules.Data.Groups {
		n += len(g.Rules)
	}
	require.Greater(t, n, 20)

	for end := time.Now().Add(quietFor); time.Now().Before(end); hold(t, 5*time.Second) {
		var alerts struct {
			Data struct {
				Alerts []struct {
					State  string
					Labels map[string]string
				}
			}
		}
		ask("alerts", &alerts)
		for _, a := range alerts.Data.Alerts {
			require.NotEqual(t, "firing", a.State, "%v on a healthy stack", a.Labels)
		}
	}
	ask("rules", &rules)
	for _, g := range rules.Data.Groups {
		for _, r := range g.Rules {
			require.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
		}
	}

	// It reaches the ops ports, but not the database.
	code, out := s.box("prometheus").exec(t, "wget", "-q", "-T", "3", "-O", "/dev/null", "http://"+s.box("postgres").address(t, "data")+":5432")
	require.NotZero(t, code, out)
	require.NotContains(t, out, "reset by peer")
	// It must not read the volumes.
	for _, path := range []string{"/volumes/postgres/cluster", "/volumes/nats/single/jetstream"} {
		code, out = s.box("node-exporter").exec(t, "ls", path)
		require.NotZero(t, code, out)
		require.Contains(t, out, "denied", path)
	}
}
