// Command buildmesh runs a node of the build mesh and asks a running one how it does.
//
// One file per verb; main.go parses and dispatches. The verbs print what the node's control API, its
// configuration or its checks return and take no decisions of their own.
//
// Exit status:
//
//	0  done
//	1  it failed; the reason stands on stderr
//	2  wrong usage, or a configuration that does not hold
//	3  no node answers
//	4  done, and it found something wrong (doctor, cache verify)
//
// Start reading at main.go, run. The test that shows it whole is TestVerbs.
package main
