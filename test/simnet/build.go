package simnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	jetstreamModule  = "github.com/bluesky-social/jetstream"
	jetstreamCommand = jetstreamModule + "/cmd/jetstream"
	// buildLockPoll is the pause between two tries for the build lock; a build takes half a minute.
	buildLockPoll = 100 * time.Millisecond
)

// BuildJetstream returns the path of the real server's binary, at the version that the test module requires. It is built
// once per machine and version and kept in dir, or in the user's cache folder where dir is empty. It must be called from
// inside the test module or its workspace, since the go command reads the version there. Several processes may call it
// at once: one builds, the others wait.
func BuildJetstream(ctx context.Context, dir string) (string, error) {
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a folder for the server binary: %w", err)
		}
		dir = filepath.Join(cache, "tagstream", "bin")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make folder for the server binary: %w", err)
	}
	version, err := goCommand(ctx, "list", "-m", "-f", "{{.Version}}", jetstreamModule)
	if err != nil {
		return "", fmt.Errorf("find required version of %s: %w", jetstreamModule, err)
	}
	path := filepath.Join(dir, fmt.Sprintf("jetstream-%s-%s-%s", version, runtime.GOOS, runtime.GOARCH))
	if isExecutable(path) {
		return path, nil
	}
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if isExecutable(path) {
		return path, nil
	}
	// A process that dies here leaves only this temporary file.
	temp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("make build folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	built := filepath.Join(temp, "jetstream")
	if _, err := goCommand(ctx, "build", "-o", built, jetstreamCommand); err != nil {
		return "", fmt.Errorf("build %s %s: %w", jetstreamCommand, version, err)
	}
	if err := os.Rename(built, path); err != nil {
		return "", fmt.Errorf("keep server binary: %w", err)
	}
	return path, nil
}

// isExecutable says whether path is a file that can be run.
func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// goCommand runs the go command and returns its trimmed output; its error carries what the command said.
func goCommand(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return "", fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("go %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// lockFile takes an exclusive lock that ends with the process, and returns its release.
func lockFile(ctx context.Context, path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open build lock: %w", err)
	}
	ticker := time.NewTicker(buildLockPoll)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = file.Close()
			return nil, fmt.Errorf("take build lock: %w", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("wait for build lock: %w", ctx.Err())
		}
	}
}
