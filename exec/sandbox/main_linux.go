package sandbox

import (
	"os"

	"github.com/buildmesh/buildmesh/exec/sandbox/initproc"
)

// Main must be the first call of main in every program that uses this package (TestMain in tests). It returns at once,
// unless the program was started by the package to be the init of a sandbox; then it never returns.
func Main() {
	if len(os.Args) > 0 && os.Args[0] == initproc.Name {
		initproc.Run()
	}
}
