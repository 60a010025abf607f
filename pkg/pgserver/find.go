package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	// minMajor is the oldest supported major version of Postgres.
	minMajor = 15
	// probeTimeout bounds one run of a program that only prints its version.
	probeTimeout = 10 * time.Second
)

// ErrNotFound means that the machine has no suitable Postgres. The error's text says what to do;
// retrying helps only after that.
var ErrNotFound = errors.New("no usable Postgres")

// Binaries is one installation of the Postgres server.
type Binaries struct {
	// Dir is the folder that holds the programs postgres and initdb.
	Dir string
	// Version is the release as the server prints it, such as "15.18".
	Version string
	// Major is the release's major version. A cluster works with only one.
	Major int
}

// folders are where packages and .ci/postgres put the server; a * stands for a version.
var folders = []string{
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
	"/var/cache/tagstream/postgres/npm-*/bin", // .ci/postgres as root
}

// Find returns the newest Postgres on this machine, 15 or newer, that can use the cluster in dir,
// the directory of Start. It searches the PATH, the folder that pg_config reports, and the usual
// folders. An empty dir means that there is no cluster. If there is none, it returns ErrNotFound.
func Find(ctx context.Context, dir string) (Binaries, error) {
	clusterDir, candidates := "", installed(ctx)
	if dir != "" {
		clusterDir = filepath.Join(dir, clusterName)
		// Binaries that earlier versions downloaded.
		old, _ := filepath.Glob(filepath.Join(dir, "binaries", "npm-*", "bin")) // fails only for a bad pattern
		candidates = append(candidates, old...)
	}
	acct, err := chooseAccount(clusterDir)
	if err != nil {
		return Binaries{}, fmt.Errorf("find Postgres: %w", err)
	}
	major, err := clusterMajor(clusterDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Binaries{}, fmt.Errorf("find Postgres: %w", err)
	}
	found, unfit := newest(ctx, acct, major, candidates)
	switch {
	case ctx.Err() != nil:
		return Binaries{}, fmt.Errorf("find Postgres: %w", ctx.Err())
	case found.Dir == "":
		return Binaries{}, notFound(clusterDir, major, unfit)
	}
	return found, nil
}

// notFound says in one sentence what to do.
func notFound(clusterDir string, major int, unfit []string) error {
	wanted, brew := fmt.Sprintf("Postgres %d or newer", minMajor), 17
	if major != 0 {
		wanted, brew = fmt.Sprintf("Postgres %d, which wrote %s,", major, clusterDir), major
	}
	passedOver := ""
	if len(unfit) > 0 {
		passedOver = "; passed over: " + strings.Join(unfit, ", ")
	}
	return fmt.Errorf("%w: %s is needed: install it (Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql@%d; in a checkout: .ci/postgres)%s",
		ErrNotFound, wanted, brew, passedOver)
}

// installed lists where the machine may have a server.
func installed(ctx context.Context) []string {
	var all []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// Resolve links: initdb is expected next to the program.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			all = append(all, filepath.Dir(real))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		all = append(all, strings.TrimSpace(string(out)))
	}
	patterns := folders
	if home, err := os.UserHomeDir(); err == nil {
		patterns = append(slices.Clip(patterns), filepath.Join(home, ".cache/tagstream/postgres/npm-*/bin")) // .ci/postgres
	}
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern) // as above
		all = append(all, matches...)
	}
	return all
}

// newest returns the newest usable installation in folders (the first of equal ones), and why other
// existing ones are not usable. A major of 0 means any.
func newest(ctx context.Context, acct account, major int, folders []string) (best Binaries, unfit []string) {
	seen := map[string]bool{}
	for _, folder := range folders {
		folder, err := filepath.EvalSymlinks(folder)
		if err != nil || seen[folder] {
			continue
		}
		seen[folder] = true
		found, err := probe(ctx, acct, folder)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			unfit = append(unfit, err.Error())
		case found.Major < minMajor:
			unfit = append(unfit, fmt.Sprintf("%s is version %s", folder, found.Version))
		case major != 0 && found.Major != major:
			unfit = append(unfit, fmt.Sprintf("%s is version %s, the data needs %d", folder, found.Version, major))
		case compareVersions(found.Version, best.Version) > 0:
			best = found
		}
	}
	return best, unfit
}

// versionPattern matches what postgres --version prints, also for a beta.
var versionPattern = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d{1,4})((?:\.\d+)*)`)

// probe runs the server in folder for its version, as the account that will run it. It returns
// fs.ErrNotExist if the folder has no server.
func probe(ctx context.Context, acct account, folder string) (Binaries, error) {
	server := filepath.Join(folder, "postgres")
	if _, err := os.Stat(server); err != nil {
		return Binaries{}, err
	}
	if _, err := os.Stat(filepath.Join(folder, "initdb")); err != nil {
		return Binaries{}, fmt.Errorf("%s lacks initdb", folder)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	out, err := acct.command(ctx, server, "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("%s does not run as user id %d: %w", server, acct.uid, err)
	}
	match := versionPattern.FindStringSubmatch(string(out))
	if match == nil {
		return Binaries{}, fmt.Errorf("%s does not report its version", server)
	}
	major, _ := strconv.Atoi(match[1]) // digits, says the pattern
	return Binaries{Dir: folder, Version: match[1] + match[2], Major: major}, nil
}

// compareVersions orders releases such as "15.18" by their numbers.
func compareVersions(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(a, b string) int {
		x, _ := strconv.Atoi(a) // digits or nothing, says versionPattern
		y, _ := strconv.Atoi(b)
		return cmp.Compare(x, y)
	})
}
