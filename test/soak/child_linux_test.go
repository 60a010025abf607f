package soak_test

import "syscall"

// childAttributes makes a child die with this process, and keeps a terminal's
// Ctrl-C from it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
