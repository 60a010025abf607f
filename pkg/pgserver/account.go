package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that Postgres runs as.
type account struct {
	uid, gid int
	// switched is true where it is not this process's own user.
	switched bool
}

// chooseAccount gives this process's user, or, where that is root, which
// Postgres refuses: the owner of an existing cluster, else postgres, nobody or
// daemon. A bare number would not do: initdb wants a user with a name. An empty clusterDir stands for no cluster.
func chooseAccount(clusterDir string) (account, error) {
	uid, gid := os.Geteuid(), os.Getegid()
	owner, ownerGroup, err := ownerOf(clusterDir)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return account{}, fmt.Errorf("read the owner of %s: %w", clusterDir, err)
	}
	if uid != 0 {
		if exists && owner != uid {
			return account{}, fmt.Errorf("%s belongs to user id %d and this process runs as %d: run it as that user, or as root", clusterDir, owner, uid)
		}
		return account{uid: uid, gid: gid}, nil
	}
	if exists && owner != 0 {
		return account{uid: owner, gid: ownerGroup, switched: true}, nil
	}
	for _, name := range []string{"postgres", "nobody", "daemon"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(found.Uid)
		gid, gidErr := strconv.Atoi(found.Gid)
		if uidErr == nil && gidErr == nil && uid > 0 {
			return account{uid: uid, gid: gid, switched: true}, nil
		}
	}
	return account{}, errors.New("this process is root, as which Postgres does not run, and the machine has none of the users postgres, nobody and daemon: add one, or run as another user")
}

// command prepares a program of Postgres to run as the account, with an
// environment of its own: variables such as PGPORT would change the server.
func (a account) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	if libraries := os.Getenv("LD_LIBRARY_PATH"); libraries != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+libraries)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// grant makes path, and what is below it, the account's. It does nothing where
// the top already is.
func (a account) grant(path string) error {
	if !a.switched {
		return nil
	}
	owner, _, err := ownerOf(path)
	if err != nil {
		return err
	}
	if owner == a.uid {
		return nil
	}
	// The top goes last: a crash half-way leaves a tree that is done again.
	err = filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if err != nil || name == path {
			return err
		}
		return os.Lchown(name, a.uid, a.gid)
	})
	if err != nil {
		return err
	}
	return os.Lchown(path, a.uid, a.gid)
}

// reaches says whether the account may enter every directory above path, which
// must be absolute. It reads mode bits alone.
func (a account) reaches(path string) bool {
	if !a.switched {
		return true
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return false
		}
		var search fs.FileMode = 0o001
		switch {
		case int(stat.Uid) == a.uid:
			search = 0o100
		case int(stat.Gid) == a.gid:
			search = 0o010
		}
		if info.Mode()&search == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// pass gives the name by which a command of the account finds path. Where the
// account cannot enter a directory above, such as /root, the command gets the
// opened file itself and names it through /proc, which asks only for rights on
// the file. The returned file, if any, is for closing after the command has
// started.
func (a account) pass(cmd *exec.Cmd, path string) (string, *os.File, error) {
	if a.reaches(path) {
		return path, nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		file.Close()
		return "", nil, fmt.Errorf("user id %d, which Postgres runs as, cannot enter the directories above %s: choose a data directory that every user can reach, such as one under /var/lib", a.uid, path)
	}
	const firstExtra = 3 // after standard input, output and error
	cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	return fmt.Sprintf("/proc/self/fd/%d", firstExtra+len(cmd.ExtraFiles)-1), file, nil
}

func ownerOf(path string) (uid, gid int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("the file system does not tell the owner of %s", path)
	}
	return int(stat.Uid), int(stat.Gid), nil
}
