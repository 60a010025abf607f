package pgserver

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// openDir creates a temporary directory that every user can enter, like the folders of real
// installations.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgserver-find-") //nolint:usetesting // t.TempDir is closed to other users
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// fakeInstall makes a folder with a server that prints text as its version.
func fakeInstall(t *testing.T, root, name, text string) string {
	t.Helper()
	dir := filepath.Join(root, name)
	require.NoError(t, os.Mkdir(dir, 0o755))
	script := "#!/bin/sh\necho '" + text + "'\n"
	for _, program := range []string{"postgres", "initdb"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755))
	}
	return dir
}

// TestBest is not parallel: a program that was just written cannot be run while the starting child
// of another test still has the file open.
func TestBest(t *testing.T) { //nolint:paralleltest // see above
	root := openDir(t)
	fake := func(name, text string) string { return fakeInstall(t, root, name, text) }
	old := fake("old", "postgres (PostgreSQL) 14.9")
	debian15 := fake("debian15", "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)")
	other15 := fake("other15", "postgres (PostgreSQL) 15.9")
	twin15 := fake("twin15", "postgres (PostgreSQL) 15.18")
	beta18 := fake("beta18", "postgres (PostgreSQL) 18beta2")
	new17 := fake("new17", "postgres (PostgreSQL) 17.10")
	mute := fake("mute", "hello")
	bare := fake("bare", "postgres (PostgreSQL) 17.10")
	require.NoError(t, os.Remove(filepath.Join(bare, "initdb")))
	locked := fake("locked", "postgres (PostgreSQL) 19.1")
	require.NoError(t, os.Chmod(filepath.Join(locked, "postgres"), 0o600))
	link := filepath.Join(root, "link")
	require.NoError(t, os.Symlink(debian15, link))
	absent := filepath.Join(root, "absent")

	for _, test := range []struct {
		name    string
		major   int
		folders []string
		want    Binaries // its zero value: none
		unfit   []string
	}{
		{name: "nothing", folders: []string{absent}},
		{name: "newest by number", folders: []string{other15, debian15}, want: Binaries{debian15, "15.18", 15}},
		{name: "first of equal ones", folders: []string{twin15, debian15}, want: Binaries{twin15, "15.18", 15}},
		{name: "newest major", folders: []string{debian15, new17}, want: Binaries{new17, "17.10", 17}},
		{name: "a beta", folders: []string{new17, beta18}, want: Binaries{beta18, "18", 18}},
		{name: "the cluster's major", major: 15, folders: []string{new17, debian15}, want: Binaries{debian15, "15.18", 15}, unfit: []string{"the data needs 15"}},
		{name: "too old", folders: []string{old}, unfit: []string{old + " is version 14.9"}},
		{name: "through a link", folders: []string{link}, want: Binaries{debian15, "15.18", 15}},
		{name: "no version", folders: []string{mute}, unfit: []string{"does not report its version"}},
		{name: "no initdb", folders: []string{bare}, unfit: []string{bare + " lacks initdb"}},
		{name: "not to be run", folders: []string{locked, new17}, want: Binaries{new17, "17.10", 17}, unfit: []string{"does not run as user id"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			acct, err := chooseAccount("")
			require.NoError(t, err)
			found, unfit := newest(t.Context(), acct, test.major, test.folders)
			require.Equal(t, test.want, found)
			require.Len(t, unfit, len(test.unfit))
			for i, want := range test.unfit {
				require.Contains(t, unfit[i], want)
			}
		})
	}
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	ascending := []string{"", "9.6", "15", "15.2", "15.18", "16.0", "17.10"}
	for i, a := range ascending {
		for j, b := range ascending {
			got := compareVersions(a, b)
			require.Equal(t, i < j, got < 0, "%q and %q", a, b)
			require.Equal(t, i == j, got == 0, "%q and %q", a, b)
		}
	}
}

func TestNotFoundSaysWhatToDo(t *testing.T) {
	t.Parallel()
	err := notFound("", 0, []string{"/opt/pg is version 12.1"})
	require.ErrorIs(t, err, ErrNotFound)
	require.EqualError(t, err, "no usable Postgres: Postgres 15 or newer is needed: install it (Debian and Ubuntu: apt-get install postgresql; "+
		"macOS: brew install postgresql@17; in a checkout: .ci/postgres); passed over: /opt/pg is version 12.1")
	require.ErrorContains(t, notFound("/data/cluster", 16, nil), "Postgres 16, which wrote /data/cluster, is needed: install it (Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql@16;")
}
