// Package execution is the Execution service of the endpoint, and the Operations service beside it: flights
// (exec/flight) as clients of the protocol see them.
//
// Nouns: Service (Execute, WaitExecution), Operations (google.longrunning.Operations), operation (a
// flight's state as a message).
//
// Promises:
//   - The first Operation is sent at once, then one for every change the client is quick enough to see,
//     and one every Options.KeepAlive without change. done comes with COMPLETED only, and ends the stream.
//   - Errors before a flight exists are gRPC statuses; later ones stand in ExecuteResponse.status.
//     Operation.error is never set.
//   - A client that goes away ends nothing. CancelOperation ends the run for everyone; for an unknown
//     name it is INVALID_ARGUMENT, which is the one code BuildStream takes for it. Every other call with
//     an unknown name is NOT_FOUND; for WaitExecution it means: Execute again.
//   - What a client asks to have inlined is, as far as it fits; the flight's own response is never changed.
//
// What it does not do: it runs nothing, keeps no state of its own, and chooses no codes but NOT_FOUND for
// operations: node/reapi's table does.
//
// Source: build.bazel.remote.execution.v2, service Execution; google.longrunning.Operations.
//
// Start reading at service.go, Service.stream. The test that shows it whole is TestExecute.
package execution
