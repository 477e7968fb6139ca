// Command shim is the first process of a sandbox, as small a program as it can be: everything it does is in
// exec/sandbox/initproc. It is embedded into the node by exec/sandbox/embedded.
//
// What it does not do: it is never started by hand and takes no arguments.
//
// Start reading at exec/sandbox/initproc, Run. The tests of exec/sandbox show it whole.
package main
