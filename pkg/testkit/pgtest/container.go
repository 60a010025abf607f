package pgtest

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tcexec "github.com/testcontainers/testcontainers-go/exec"
	tclog "github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
)

const (
	// defaultImage is the container image if TEST_POSTGRES_IMAGE is not set.
	defaultImage = "postgres:17-alpine"
	// engineLimit bounds the check for a Docker engine: most machines without one answer
	// immediately.
	engineLimit = 2 * time.Second
	// connectInterval is the pause between attempts to reach a new container.
	connectInterval = 50 * time.Millisecond
	// lifeKey is the advisory lock that shows a container that its test binary is alive.
	lifeKey = 0x7467_6c69_6665
)

// watchdog runs inside the container. It waits for the lock that the test binary's own connection
// holds: when the binary is gone, for whatever reason, the lock is free, the server stops, and the
// engine removes the container. The reaper of testcontainers does the same with a separate image,
// which may not be on this machine.
var watchdog = fmt.Sprintf(
	`nohup sh -c 'psql -U postgres -qAt -c "SELECT pg_advisory_lock(%d)"; kill -INT 1' >/dev/null 2>&1 &`, lifeKey)

func openContainer(ctx context.Context) (source, error) {
	image := os.Getenv("TEST_POSTGRES_IMAGE")
	if image == "" {
		image = defaultImage
	}
	if err := imagePresent(ctx, image); err != nil {
		return source{}, fmt.Errorf("container of %s: %w: %w", image, errNoSource, err)
	}
	// Read by testcontainers when it first connects to the engine.
	if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
		return source{}, err
	}
	tclog.SetDefault(tclog.NewNoopLogger())
	settings := []string{"postgres"}
	for name, value := range withFast(nil) {
		settings = append(settings, "-c", name+"="+value)
	}
	running, err := postgres.Run(ctx, image,
		testcontainers.WithCmd(settings...),
		testcontainers.WithHostConfigModifier(func(host *container.HostConfig) { host.AutoRemove = true }),
	)
	if err != nil {
		return source{}, fmt.Errorf("run a container of %s: %w", image, err)
	}
	stop := func(ctx context.Context) error {
		var atOnce time.Duration
		return running.Stop(ctx, &atOnce) // the engine removes it then
	}
	life, url, err := holdLife(ctx, running)
	if err != nil {
		_ = stop(context.WithoutCancel(ctx)) // the first error matters more
		return source{}, fmt.Errorf("reach the container of %s: %w", image, err)
	}
	return source{
		name: "a container of " + image,
		url:  url,
		stop: func(ctx context.Context) error {
			err := stop(ctx)
			_ = life.Close(ctx) // its server is gone already
			return err
		},
	}, nil
}

// imagePresent returns nil if an engine answers and has the image. Tests never pull anything.
func imagePresent(ctx context.Context, image string) error {
	engine, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(ctx, engineLimit)
	defer cancel()
	_, err = engine.ImageInspect(ctx, image)
	return err
}

// holdLife waits until the container's server accepts connections, takes the lock on one and starts
// the watchdog.
func holdLife(ctx context.Context, running *postgres.PostgresContainer) (*pgx.Conn, string, error) {
	url, err := running.ConnectionString(ctx, "sslmode=disable")
	if err != nil {
		return nil, "", err
	}
	life, err := connectWhenReady(ctx, url)
	if err != nil {
		return nil, "", err
	}
	if _, err := life.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(lifeKey)); err != nil {
		return nil, "", err
	}
	status, _, err := running.Exec(ctx, []string{"sh", "-c", watchdog}, tcexec.WithUser("postgres"))
	if err != nil {
		return nil, "", fmt.Errorf("start the watchdog: %w", err)
	}
	if status != 0 {
		return nil, "", fmt.Errorf("start the watchdog: status %d", status)
	}
	return life, url, nil
}

// connectWhenReady connects by TCP, which the image's server opens only when it has finished its
// own preparations.
func connectWhenReady(ctx context.Context, url string) (*pgx.Conn, error) {
	ticker := time.NewTicker(connectInterval)
	defer ticker.Stop()
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-ticker.C:
		}
	}
}
