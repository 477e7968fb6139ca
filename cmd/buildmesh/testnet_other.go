//go:build !linux

package main

import "os/exec"

// dieTogether does nothing: only Linux ends a process with the one that started it.
func dieTogether(*exec.Cmd) {}
