package process

import "syscall"

// ChildAttributes make a child die with this process, even when this process is killed, and keep a
// terminal's Ctrl-C from it, so that servers are stopped in order.
func ChildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
