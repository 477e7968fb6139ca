// Package run takes one action through its life on this machine and brings back its result.
//
//	load:    the input tree, from memory when it was used lately
//	stage:   its layers (exec/stage), held until the end
//	sandbox: the command, in a scratch directory of its own (exec/sandbox)
//	collect: what it wrote (exec/collect), stdout and stderr, into the blob store
//	outcome: the result with all timestamps and the resource usage
//
// Nouns: Runner, Options, and the errors TimeoutError and ResourceError.
//
// Promises:
//   - Runner implements flight.Executor. When Execute returns nothing of the action runs any more.
//   - An action's own failure is a result with its exit code and outputs, never an error. An error is
//     the client's (*action.MissingError, *action.InvalidError, *action.UnsupportedError,
//     *sandbox.CommandError, *collect.OutputError), a limit (*TimeoutError, *ResourceError), the end of
//     ctx, or a fault of this machine.
//   - Every missing input, directory or file, is named in one *action.MissingError.
//   - An action that reached a limit comes with an Outcome too: its stdout, stderr and, as far as they
//     can be read, its outputs. It is never to be cached.
//   - An action that ran out of the memory it had by default is run once more with more, one such at a
//     time. So an action may run twice.
//   - The time an action may take counts from its start; waiting, fetching and uploading are not in it.
//   - Scratch directories vanish in the background; those of a killed process at the next Open.
//
// What it does not do: it takes no slot (exec/flight has one when it calls), asks no cache, stores no
// action result, and does not decide whether this machine suits the action (exec/platform does).
//
// Start reading at runner.go, Execute. The test that shows it whole is TestExecute; TestCompile runs a
// compiler in the real sandbox.
package run
