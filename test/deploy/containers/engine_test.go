package containers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

const (
	engineLimit = 5 * time.Second
	// healthLimit bounds the time until a container is healthy again.
	healthLimit = 90 * time.Second
	// Labels that compose gives to its containers.
	projectLabel = "com.docker.compose.project"
	serviceLabel = "com.docker.compose.service"
)

// needEngine returns a client of an engine that has the images. Without one it skips the test, or
// fails it if the tests are required.
func needEngine(t *testing.T) *client.Client {
	t.Helper()
	engine, err := openEngine(t.Context())
	if err == nil {
		t.Cleanup(func() { _ = engine.Close() })
		return engine
	}
	if os.Getenv("CI") == "true" || os.Getenv("TEST_CONTAINERS") == "required" {
		t.Fatalf("container tests are required here: %v", err)
	}
	t.Skipf("container tests need an engine and the images of make images: %v", err)
	return nil
}

func openEngine(ctx context.Context) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, engineLimit)
	defer cancel()
	engine, err := client.New(client.FromEnv)
	if err != nil {
		return nil, err
	}
	for _, name := range imageNames {
		if _, err := engine.ImageInspect(ctx, image(name)); err != nil {
			return nil, errors.Join(fmt.Errorf("image %s: %w", image(name), err), engine.Close())
		}
	}
	return engine, nil
}

// imageNames are the targets of deploy/Dockerfile.
var imageNames = []string{"ingest", "indexer", "api", "proxy", "nats", "postgres", "upstream", "secrets"}

// image returns an image's name, as in docker-compose.yml.
func image(name string) string {
	prefix, tag := os.Getenv("IMAGE_PREFIX"), os.Getenv("IMAGE_TAG")
	if prefix == "" {
		prefix = "tagstream"
	}
	if tag == "" {
		tag = "latest"
	}
	return prefix + "/" + name + ":" + tag
}

// box is a container of the stack.
type box struct {
	engine  *client.Client
	id      string
	name    string // the service's, with a number if there are several
	service string
}

func (b *box) inspect(t testing.TB) container.InspectResponse {
	t.Helper()
	res, err := b.engine.ContainerInspect(context.WithoutCancel(t.Context()), b.id, client.ContainerInspectOptions{})
	require.NoError(t, err)
	return res.Container
}

// address returns the container's address in one of the stack's networks.
func (b *box) address(t testing.TB, network string) string {
	t.Helper()
	for name, end := range b.inspect(t).NetworkSettings.Networks {
		if strings.HasSuffix(name, "_"+network) {
			return end.IPAddress.String()
		}
	}
	t.Fatalf("%s is not in network %s", b.name, network)
	return ""
}

// awaitHealthy returns when the container is ready or is a standby. The engine's last result may be
// outdated, so it asks the container itself if possible.
func (b *box) awaitHealthy(t testing.TB) {
	t.Helper()
	poll.Until(t, healthLimit, func() (bool, string) {
		s := b.inspect(t).State
		state := fmt.Sprintf("%s is %s", b.name, s.Status)
		if !s.Running || s.Paused {
			return false, state
		}
		switch b.service {
		case "ingest", "indexer", "api":
			code, says := b.exec(t, "/"+b.service, "health")
			return code == 0, state + ": " + says
		}
		if s.Health == nil {
			return true, state
		}
		return s.Health.Status == container.Healthy, fmt.Sprint(state, ", ", s.Health.Status)
	})
}

// kill kills the container's first process, and with it all others, like a crash. The engine's
// restart policy restarts it.
func (b *box) kill(t testing.TB) {
	t.Helper()
	before := b.inspect(t).State
	if b.isLocal(before.Pid) {
		require.NoError(t, syscall.Kill(before.Pid, syscall.SIGKILL), b.name)
		poll.Until(t, healthLimit, func() (bool, string) {
			s := b.inspect(t).State
			return s.Running && s.StartedAt != before.StartedAt, fmt.Sprintf("%s was killed and is %s", b.name, s.Status)
		})
		return
	}
	// An engine does not restart a container that it was asked to kill.
	_, err := b.engine.ContainerKill(t.Context(), b.id, client.ContainerKillOptions{Signal: "KILL"})
	require.NoError(t, err, b.name)
	_, err = b.engine.ContainerStart(t.Context(), b.id, client.ContainerStartOptions{})
	require.NoError(t, err, b.name)
}

// isLocal reports whether the local process with that id is the container's. If the engine is on
// another machine, it is another process.
func (b *box) isLocal(pid int) bool {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && pid > 1 && strings.Contains(string(groups), b.id)
}

// pause freezes the container for a while.
func (b *box) pause(t testing.TB, d time.Duration) {
	t.Helper()
	// An engine cannot freeze a container while a health check starts in it.
	poll.NoError(t, engineLimit, func() error {
		_, err := b.engine.ContainerPause(t.Context(), b.id, client.ContainerPauseOptions{})
		return err
	})
	hold(t, d)
	_, err := b.engine.ContainerUnpause(context.WithoutCancel(t.Context()), b.id, client.ContainerUnpauseOptions{})
	require.NoError(t, err, b.name)
}

// disconnect removes the container from all its networks for a while.
func (b *box) disconnect(t testing.TB, d time.Duration) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	networks := b.inspect(t).NetworkSettings.Networks
	for name := range networks {
		_, err := b.engine.NetworkDisconnect(ctx, name, client.NetworkDisconnectOptions{Container: b.id})
		require.NoError(t, err, "%s off %s", b.name, name)
	}
	hold(t, d)
	for name, end := range networks {
		_, err := b.engine.NetworkConnect(ctx, name, client.NetworkConnectOptions{
			Container: b.id, EndpointConfig: &network.EndpointSettings{Aliases: end.Aliases},
		})
		require.NoError(t, err, "%s back on %s", b.name, name)
	}
}

// restart stops the container like an operator, and starts it again.
func (b *box) restart(t testing.TB) {
	t.Helper()
	_, err := b.engine.ContainerRestart(t.Context(), b.id, client.ContainerRestartOptions{})
	require.NoError(t, err, b.name)
}

// exec runs a command in the container and returns its exit code and output; if it cannot be run,
// -1 and the reason.
func (b *box) exec(t testing.TB, command ...string) (int, string) {
	t.Helper()
	made, err := b.engine.ExecCreate(t.Context(), b.id, client.ExecCreateOptions{Cmd: command, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return -1, err.Error()
	}
	attached, err := b.engine.ExecAttach(t.Context(), made.ID, client.ExecAttachOptions{})
	if err != nil {
		return -1, err.Error()
	}
	defer attached.Close()
	var out strings.Builder
	if _, err := stdcopy.StdCopy(&out, &out, attached.Reader); err != nil {
		return -1, err.Error()
	}
	res, err := b.engine.ExecInspect(t.Context(), made.ID, client.ExecInspectOptions{})
	if err != nil {
		return -1, err.Error()
	}
	return res.ExitCode, out.String()
}

// logs returns the container's newest output.
func (b *box) logs(ctx context.Context, lines int) string {
	res, err := b.engine.ContainerLogs(ctx, b.id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: fmt.Sprint(lines)})
	if err != nil {
		return err.Error()
	}
	defer res.Close()
	var out strings.Builder
	if _, err := stdcopy.StdCopy(&out, &out, res); err != nil && !errors.Is(err, io.EOF) {
		return err.Error()
	}
	return out.String()
}

// hold waits for the duration of a fault.
func hold(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
