package simnet

import "syscall"

// childAttributes makes a child die with this process, even when this process is killed, and keeps a terminal's Ctrl-C
// from it, so that servers are stopped in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
