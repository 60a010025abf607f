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
	"runtime"
	"strconv"
	"syscall"
)

// account is the user that runs Postgres.
type account struct {
	uid, gid int
	// switched reports that it is not this process's own user.
	switched bool
}

// chooseAccount returns this process's user or, if that is root, which Postgres refuses, the owner
// of an existing cluster, else postgres, nobody or daemon. A bare number would not work: initdb
// needs a user with a name. An empty clusterDir means that there is no cluster.
func chooseAccount(clusterDir string) (account, error) {
	own := account{uid: os.Geteuid(), gid: os.Getegid()}
	owner, err := ownerOf(clusterDir)
	exists := err == nil
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return account{}, fmt.Errorf("read the owner of %s: %w", clusterDir, err)
	case own.uid != 0 && exists && owner.uid != own.uid:
		return account{}, fmt.Errorf("%s belongs to user id %d and this process runs as %d: run it as that user, or as root", clusterDir, owner.uid, own.uid)
	case own.uid != 0:
		return own, nil
	case runtime.GOOS != "linux":
		return account{}, errors.New("Postgres does not run as root: start this process as another user")
	case exists && owner.uid != 0:
		return account{uid: owner.uid, gid: owner.gid, switched: true}, nil
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
	return account{}, errors.New("Postgres does not run as root, and the machine has none of the users postgres, nobody and daemon: add one, or start this process as another user")
}

func ownerOf(path string) (account, error) {
	info, err := os.Stat(path)
	if err != nil {
		return account{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return account{}, fmt.Errorf("the file system does not report the owner of %s", path)
	}
	return account{uid: int(stat.Uid), gid: int(stat.Gid)}, nil
}

// command prepares a Postgres program to run as the account. It does not inherit our environment:
// variables such as PGPORT would change the server.
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

// grant gives path and everything below it to the account, unless the account already owns path.
func (a account) grant(path string) error {
	owner, err := ownerOf(path)
	if err != nil || !a.switched || owner.uid == a.uid {
		return err
	}
	// The top comes last: a crash half-way leaves a tree that is processed again.
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

// pass returns a name by which a command of the account can open path. The account may be unable to
// enter a parent directory, such as /root, so the command inherits the open file and names it
// through /proc, which only needs rights on the file. If a file is returned, close it after the
// command has started.
func (a account) pass(cmd *exec.Cmd, path string) (string, *os.File, error) {
	if !a.switched {
		return path, nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	const firstExtra = 3 // after standard input, output and error
	cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	return fmt.Sprintf("/proc/self/fd/%d", firstExtra+len(cmd.ExtraFiles)-1), file, nil
}
