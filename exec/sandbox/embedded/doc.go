// Package embedded carries the sandbox's init program inside the node.
//
// The program is built before the node, once for each architecture, and is not under version control:
//
//	CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -ldflags "-s -w" -o exec/sandbox/embedded/shim_linux_amd64 ./exec/sandbox/shim
//	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -trimpath -ldflags "-s -w" -o exec/sandbox/embedded/shim_linux_arm64 ./exec/sandbox/shim
//
// A node built without it works: the sandbox then runs the node's own binary as init, which starts more slowly (the Go
// runtime initialises every package of the node). exec/sandbox tells in its Report which of the two is in use.
//
// Start reading at embedded.go, Shim.
package embedded
