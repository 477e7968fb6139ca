package main

import (
	"fmt"
	"runtime"
)

// versionVerb is `buildmesh version`.
type versionVerb struct{}

// Run prints the version, the compiler and the system.
func (versionVerb) Run(v *verbContext) error {
	_, err := fmt.Fprintf(v.out, "buildmesh %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
