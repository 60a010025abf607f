//go:build unix && !linux

package process

import "syscall"

// ChildAttributes keep a terminal's Ctrl-C from a child, so that servers are stopped in order. Only
// Linux can make a child die with a killed parent.
func ChildAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
