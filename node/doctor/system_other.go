//go:build !linux

package doctor

import "errors"

// systemChecks are the checks of what a sandbox is made from; none is known for this system.
func systemChecks() []Check { return nil }

// systemRoots names the checks without which no sandbox can be expected.
func systemRoots() []string { return nil }

// openFiles judges the limit of file descriptors.
func openFiles() Finding { return ok("not limited in a way this system tells") }

// diskSpace is not measured on this system.
func diskSpace(string) (free, total int64, err error) {
	return 0, 0, errors.New("not measured on this system")
}

// Holder names the process that listens on a TCP address; this system does not tell.
func Holder(string) string { return "" }
