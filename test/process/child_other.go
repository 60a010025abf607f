//go:build unix && !linux

package process

import "syscall"

// ChildAttributes returns attributes that keep a terminal's Ctrl-C from a child, so that servers
// are stopped in order. Only Linux can end a child with a killed parent.
func ChildAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
