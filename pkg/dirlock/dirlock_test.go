package dirlock_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/dirlock"
)

// holdEnv makes the test binary a process that holds the named directory until
// its standard input ends.
const holdEnv = "DIRLOCK_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		os.Exit(hold(dir))
	}
	os.Exit(m.Run())
}

func hold(dir string) int {
	if _, err := dirlock.Acquire(dir); err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString("held\n")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func TestAcquire(t *testing.T) {
	t.Parallel()
	t.Run("free directory", func(t *testing.T) {
		t.Parallel()
		lock, err := dirlock.Acquire(t.TempDir())
		require.NoError(t, err)
		require.NoError(t, lock.Close())
		require.NoError(t, lock.Close(), "a second release is harmless")
	})
	t.Run("held by this process", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		lock, err := dirlock.Acquire(dir)
		require.NoError(t, err)
		_, err = dirlock.Acquire(dir)
		var held *dirlock.HeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, os.Getpid(), held.PID)
		require.NoError(t, lock.Close())
		again, err := dirlock.Acquire(dir)
		require.NoError(t, err)
		require.NoError(t, again.Close())
	})
	t.Run("file without a process id", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		lock, err := dirlock.Acquire(dir)
		require.NoError(t, err)
		defer lock.Close()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "lock"), []byte("?\n"), 0o600))
		_, err = dirlock.Acquire(dir)
		require.EqualError(t, err, "directory "+dir+" is in use by another process")
	})
	t.Run("no such directory", func(t *testing.T) {
		t.Parallel()
		_, err := dirlock.Acquire(filepath.Join(t.TempDir(), "absent"))
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

func TestHeldByAnotherProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+dir)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "held\n", line)

	_, err = dirlock.Acquire(dir)
	var held *dirlock.HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, cmd.Process.Pid, held.PID)
	require.ErrorContains(t, err, dir)

	// Killed without a chance to release: the kernel unlocks the directory.
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	lock, err := dirlock.Acquire(dir)
	require.NoError(t, err)
	require.NoError(t, lock.Close())
}
