//go:build unix && !linux

package simnet

import "syscall"

// childAttributes keeps a terminal's Ctrl-C from a child, so that servers are stopped in order. Only Linux can make a
// child die with a killed parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
