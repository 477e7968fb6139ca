//go:build !linux

package initproc

// Name is argv[0] of a node's own binary when it is to be init.
const Name = "buildmesh-init"

// Run panics: there are no namespaces outside Linux, and nobody may start init there.
func Run() { panic("init exists on linux only") }
