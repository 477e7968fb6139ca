//go:build !unix

package wrong

import "os/exec"

// isolate has no process groups to use here: the command alone is killed.
func isolate(*exec.Cmd, bool) {}

// reap has no process groups to use here.
func reap(*exec.Cmd, bool) {}
