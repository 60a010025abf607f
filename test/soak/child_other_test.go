//go:build !linux

package soak_test

import "syscall"

// childAttributes keeps a terminal's Ctrl-C from a child.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
