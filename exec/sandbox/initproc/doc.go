// Package initproc is the first process of a sandbox, and the spawner that forks it: it turns a bare set of namespaces into
// the action's world, starts the action in it, reaps everything, and reports.
//
// Nouns:
//   - Setup: what the parent asks for, in a small binary form, in two parts: the ground that many runs share, and a run.
//   - Report: what init answers: a fault while setting up, the start of the action, its end.
//   - Request, Answer: what the node and a spawner say to each other, see message.go.
//   - tape: the system calls of an init, written down before it is forked.
//
// Order of work with namespaces, and why:
//
//  1. the spawner reads the ground, becomes the guest, and mounts the template: tools, devices, and the directory of all
//     runs, out of the machine's root
//  2. for each run it writes a tape and forks; the new process only plays it: it has lost all threads but one, and must
//     neither allocate nor lock. There is no exec, which would cost more than all mounts together
//  3. init ties its life to the spawner's, mounts the overlay and what is private to the run, takes the directory of all
//     runs out of sight, waits until it is in its control group, then sets limits and gives up all privileges
//  4. it forks and execs the action; reports the start; reaps until the action itself ends; reports the end; exits
//
// Without namespaces (Confined) init is a program of its own, started for each run, see init_linux.go, Run.
//
// The exit of init is what kills everything that is left in its pid namespace: the kernel does not let the parent's wait
// return before. When the node is killed, the spawner's socket ends, it exits, and the kernel kills its inits.
//
// The package is linked into a very small program (see ../shim), so it imports syscall and x/sys/unix and nothing that
// does work in init: no fmt, no os, no encoding/json.
//
// It does not decide anything: which mounts, which limits, which environment, is in the Setup.
//
// Start reading at spawn_linux.go, serve, and world_linux.go, compile. The tests of exec/sandbox show it whole.
package initproc
