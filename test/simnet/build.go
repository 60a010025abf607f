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
	testModule       = "github.com/tagstream/tagstream/test"
	// buildLockPoll is the pause between two attempts to get the build lock. A build takes half a
	// minute.
	buildLockPoll = 100 * time.Millisecond
)

// BuildJetstream returns the path of the real server's binary, at the version that the test module
// requires. It is built once per machine and version and kept in dir, or in the user's cache folder
// if dir is empty. It must be called from inside the test module or its workspace, where the go
// command finds the version. Several processes may call it at the same time: one builds, the others
// wait.
func BuildJetstream(ctx context.Context, dir string) (string, error) {
	return buildServer(ctx, dir, "jetstream", func(context.Context, string) (build, error) { return build{}, nil })
}

// LateStamps is the delay that a server of BuildLateJetstream adds to the time at which it received
// an event from the relay.
const LateStamps = 10 * time.Minute

// lateFile is the source file in which a server reads its clock to stamp events from the relay, and
// how it does.
const (
	lateFile  = "internal/ingest/live/config.go"
	lateStamp = "c.now = time.Now\n"
)

// BuildLateJetstream is BuildJetstream for a server that stamps events LateStamps late, like one
// that lags behind the network. Only the clock of these stamps differs.
func BuildLateJetstream(ctx context.Context, dir string) (string, error) {
	return buildServer(ctx, dir, "jetstream-late", lateSource)
}

// lateSource writes the changed source to a folder, and a module file that replaces the real one
// with it.
func lateSource(ctx context.Context, temp string) (build, error) {
	module, err := goCommand(ctx, build{}, "list", "-m", "-f", "{{.Dir}}", jetstreamModule)
	if err != nil {
		return build{}, fmt.Errorf("find source of %s: %w", jetstreamModule, err)
	}
	here, err := goCommand(ctx, build{}, "list", "-m", "-f", "{{.Dir}}", testModule)
	if err != nil {
		return build{}, fmt.Errorf("find module %s: %w", testModule, err)
	}
	source := filepath.Join(temp, "source")
	if err := os.CopyFS(source, os.DirFS(module)); err != nil {
		return build{}, fmt.Errorf("copy source of the server: %w", err)
	}
	path := filepath.Join(source, filepath.FromSlash(lateFile))
	text, err := os.ReadFile(path)
	if err != nil {
		return build{}, fmt.Errorf("read source of the server: %w", err)
	}
	if strings.Count(string(text), lateStamp) != 1 {
		return build{}, fmt.Errorf("source of the server: %s has not one %q", lateFile, lateStamp)
	}
	late := fmt.Sprintf("c.now = func() time.Time { return time.Now().Add(%d) }\n", LateStamps)
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), lateStamp, late, 1)), 0o644); err != nil {
		return build{}, fmt.Errorf("change source of the server: %w", err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(here, name))
		if err != nil {
			return build{}, fmt.Errorf("read module file: %w", err)
		}
		if name == "go.mod" {
			text = fmt.Appendf(text, "\nreplace %s => %s\n", jetstreamModule, source)
		}
		if err := os.WriteFile(filepath.Join(temp, name), text, 0o644); err != nil {
			return build{}, fmt.Errorf("write module file: %w", err)
		}
	}
	return build{dir: here, flags: []string{"-mod=mod", "-modfile=" + filepath.Join(temp, "go.mod")}}, nil
}

// build says where a server is built, outside the workspace, and with which additional arguments.
// The zero value means the current folder, without arguments.
type build struct {
	dir   string
	flags []string
}

// buildServer builds a server; kind is part of the binary's name. prepare gets a folder for its
// files and returns how to build.
func buildServer(ctx context.Context, dir, kind string, prepare func(ctx context.Context, temp string) (build, error)) (string, error) {
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
	version, err := goCommand(ctx, build{}, "list", "-m", "-f", "{{.Version}}", jetstreamModule)
	if err != nil {
		return "", fmt.Errorf("find required version of %s: %w", jetstreamModule, err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%s-%s-%s", kind, version, runtime.GOOS, runtime.GOARCH))
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
	how, err := prepare(ctx, temp)
	if err != nil {
		return "", err
	}
	if _, err := goCommand(ctx, how, append([]string{"build", "-o", built}, append(how.flags, jetstreamCommand)...)...); err != nil {
		return "", fmt.Errorf("build %s %s: %w", jetstreamCommand, version, err)
	}
	if err := os.Rename(built, path); err != nil {
		return "", fmt.Errorf("keep server binary: %w", err)
	}
	return path, nil
}

// isExecutable reports whether path is an executable file.
func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// goCommand runs the go command and returns its trimmed output. The error includes the command's
// error output.
func goCommand(ctx context.Context, how build, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	if how.dir != "" {
		cmd.Dir, cmd.Env = how.dir, append(os.Environ(), "GOWORK=off")
	}
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return "", fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("go %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// lockFile takes an exclusive lock, which ends with the process, and returns a function that
// releases it.
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
