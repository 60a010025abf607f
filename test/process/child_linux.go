package process

import "syscall"

// ChildAttributes returns attributes that end a child with this process, even if this process is
// killed, and that keep a terminal's Ctrl-C from the child, so that servers are stopped in order.
func ChildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
