package containers_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/modules/compose"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

const (
	// root is the project's folder.
	root = "../../.."
	// upLimit bounds the start of a stack, downLimit its removal.
	upLimit   = 5 * time.Minute
	downLimit = 3 * time.Minute
)

// stack is a deployment for one test.
type stack struct {
	t       *testing.T
	engine  *client.Client
	project string
	secrets string // their folder
	// url is the URL of the published port.
	url string
	// env has the settings, for commands on the same deployment.
	env []string
}

// up starts docker-compose.yml, or some of its services, with the profiles and settings, and
// returns when it answers. It is removed with its data when the test ends.
func up(t *testing.T, profiles []string, settings map[string]string, services ...string) *stack {
	t.Helper()
	engine := needEngine(t)
	// The reaper's image may be missing; Cleanup does its work.
	t.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	tclog.SetDefault(tclog.NewNoopLogger())
	port := freePort(t)
	s := &stack{
		t: t, engine: engine,
		project: fmt.Sprintf("tagstream-test-%d-%d", os.Getpid(), port),
		secrets: filepath.Join(t.TempDir(), "secrets"),
		url:     fmt.Sprintf("http://127.0.0.1:%d", port),
	}
	s.makeSecrets()
	files := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(files, "deny.yaml"), []byte("tags: [denied]\n"), 0o644)) //nolint:gosec // for the container's user
	env := map[string]string{
		"SETTINGS_DIR": files, "TAGSTREAM_DENY_FILE": "/settings/deny.yaml", // without it no indexer starts
		"SECRETS_DIR": s.secrets, "API_PORT": fmt.Sprint(port), "RATE_PER_10S": "1000000",
		"COMPOSE_PROJECT_NAME": s.project, "IMAGE_PREFIX": os.Getenv("IMAGE_PREFIX"), "IMAGE_TAG": os.Getenv("IMAGE_TAG"),
		"TAGSTREAM_PROFILES_URL": "off",
	}
	for _, profile := range profiles {
		maps.Copy(env, readEnv(t, filepath.Join(root, "deploy", "profiles", profile+".env")))
	}
	maps.Copy(env, settings)
	file, err := filepath.Abs(filepath.Join(root, "docker-compose.yml"))
	require.NoError(t, err)
	deployment, err := compose.NewDockerComposeWith(
		compose.StackIdentifier(s.project), compose.WithStackFiles(file), compose.WithProfiles(profiles...))
	require.NoError(t, err)
	deployment.WithEnv(env)
	s.env = append(os.Environ(), "PROFILES="+strings.Join(profiles, " "))
	for name, value := range env {
		s.env = append(s.env, name+"="+value)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), downLimit)
		defer cancel()
		if t.Failed() {
			s.showLogs(ctx)
		}
		err := deployment.Down(ctx, compose.RemoveOrphans(true), compose.RemoveVolumes(true))
		if err == nil {
			err = deployment.Close()
		}
		if err != nil {
			t.Errorf("remove the stack: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), upLimit)
	defer cancel()
	var options []compose.StackUpOption
	if len(services) > 0 { // a nil list would mean all
		options = append(options, compose.RunServices(services...))
	}
	require.NoError(t, deployment.Up(ctx, options...))
	poll.Until(t, upLimit, func() (bool, string) {
		status, body := get(t.Context(), s.url+"/v1/status")
		return status == 200, fmt.Sprint(status, " ", body)
	})
	return s
}

// makeSecrets runs the image that makes the secrets.
func (s *stack) makeSecrets() {
	s.t.Helper()
	require.NoError(s.t, os.Mkdir(s.secrets, 0o700))
	made, err := testcontainers.Run(s.t.Context(), image("secrets"),
		testcontainers.WithCmd("--out", "/out"),
		testcontainers.WithConfigModifier(func(c *container.Config) { c.User = "0:0" }),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) { h.Binds = []string{s.secrets + ":/out"} }),
		testcontainers.WithWaitStrategy(wait.ForExit()),
	)
	testcontainers.CleanupContainer(s.t, made)
	require.NoError(s.t, err)
	state, err := made.State(s.t.Context())
	require.NoError(s.t, err)
	require.Zero(s.t, state.ExitCode)
}

// boxes returns the running containers by name.
func (s *stack) boxes() []*box {
	s.t.Helper()
	list, err := s.engine.ContainerList(s.t.Context(), client.ContainerListOptions{
		Filters: make(client.Filters).Add("label", projectLabel+"="+s.project),
	})
	require.NoError(s.t, err)
	var out []*box
	for _, c := range list.Items {
		name := strings.TrimPrefix(c.Names[0], "/"+s.project+"-")
		out = append(out, &box{engine: s.engine, id: c.ID, name: name, service: c.Labels[serviceLabel]})
	}
	slices.SortFunc(out, func(a, b *box) int { return strings.Compare(a.name, b.name) })
	return out
}

// box returns the first container of a service.
func (s *stack) box(service string) *box {
	s.t.Helper()
	for _, b := range s.boxes() {
		if b.service == service {
			return b
		}
	}
	s.t.Fatalf("no container of %s runs", service)
	return nil
}

func (s *stack) awaitHealthy(t testing.TB) {
	t.Helper()
	for _, b := range s.boxes() {
		b.awaitHealthy(t)
	}
	s.awaitReplicas(t)
}

// awaitReplicas returns when the proxy uses every replica of the api. It does not use a healthy
// replica immediately, and the next fault would leave none.
func (s *stack) awaitReplicas(t testing.TB) {
	t.Helper()
	replicas := 0
	for _, b := range s.boxes() {
		if b.service == "api" {
			replicas++
		}
	}
	proxy := s.box("proxy")
	poll.Until(t, healthLimit, func() (bool, string) {
		_, says := proxy.exec(t, "wget", "-q", "-O", "-", "http://127.0.0.1:8404/metrics")
		for line := range strings.Lines(says) {
			if used, found := strings.CutPrefix(line, `haproxy_backend_active_servers{proxy="api"} `); found {
				return strings.TrimSpace(used) == fmt.Sprint(replicas), fmt.Sprintf("the proxy uses %s of %d replicas", used, replicas)
			}
		}
		return false, "the proxy says nothing of its backend: " + says
	})
}

func (s *stack) showLogs(ctx context.Context) {
	list, err := s.engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", projectLabel+"="+s.project),
	})
	if err != nil {
		s.t.Logf("list the containers: %v", err)
		return
	}
	for _, c := range list.Items {
		b := &box{engine: s.engine, id: c.ID}
		s.t.Logf("%s (%s), its last lines:\n%s", c.Names[0], c.Status, b.logs(ctx, 25))
	}
}

// secret returns the text of one of the deployment's secrets.
func (s *stack) secret(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.secrets, name))
	require.NoError(s.t, err)
	return strings.TrimSpace(string(text))
}

// nats connects as one of the users to the first NATS server.
func (s *stack) nats(user string, options ...nats.Option) *nats.Conn {
	s.t.Helper()
	roots := x509.NewCertPool()
	require.True(s.t, roots.AppendCertsFromPEM([]byte(s.secret("ca.crt"))))
	key, err := nats.NkeyOptionFromSeed(filepath.Join(s.secrets, "nats_"+user+".nk"))
	require.NoError(s.t, err)
	options = append([]nats.Option{
		key, nats.Secure(&tls.Config{RootCAs: roots, ServerName: "nats"}), nats.CustomInboxPrefix("_INBOX_" + user),
	}, options...)
	nc, err := nats.Connect("tls://"+net.JoinHostPort(s.box("nats").address(s.t, "stream"), "4222"), options...)
	require.NoError(s.t, err)
	s.t.Cleanup(nc.Close)
	return nc
}

// readEnv reads a file of NAME=value lines.
func readEnv(t *testing.T, path string) map[string]string {
	t.Helper()
	env := map[string]string{}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return env
	}
	require.NoError(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(name, "#") {
			env[name] = value
		}
	}
	require.NoError(t, lines.Err())
	return env
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
