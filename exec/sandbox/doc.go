// Package sandbox runs one action so that it sees its inputs and the host's tools, read-only, and nothing else.
//
// Nouns:
//   - Box: the way this machine can isolate an action, found at start by Probe, which runs one complete sandbox.
//   - Tier: how good that way is. A: namespaces of our own; B: bubblewrap; C: Landlock, or the like of macOS and Windows,
//     good enough only for the owner's own actions; D: none. Nothing is run for others below tier B: fail closed.
//   - Spec: one run: input layers, command, limits. Result: how it ended, what it used, where its outputs are.
//
// A run in tier A:
//
//  1. a spawner, a small process that lives as long as the Box, forks an init into new mount, pid, net and ipc namespaces;
//     it was started in a user namespace where the guest is the only user, and has mounted what all runs share (see initproc)
//  2. init mounts the input layers as the read-only lower directories of an overlay whose upper directory is in Scratch;
//     that is why a layer may be made of hardlinks into the store: every write copies up first
//  3. it gives up its privileges and starts the action; a control group, where there is one, limits and counts
//  4. when the action's main process ends, times out, grows too big or is cancelled, init dies and the kernel kills all that
//     is left in the pid namespace, before Run returns: outputs are never collected while something still writes
//
// Promises: Run leaves no process, mount or control group behind; Scratch is the caller's to remove. A kill -9 of the node
// kills all actions. The action never runs as root of the machine: if the node is root, it runs as Options.GuestUID.
// Box is safe for concurrent use. An error of Run is a fault of the infrastructure, or a *CommandError; what the action
// does wrong is in the Result.
//
// Requirements in tier A (Linux 5.12 and later): Lowers, readable by Box.Owner, live below Options.Dir, every directory on
// the way searchable for it; Scratch too.
//
// In tiers B and C the inputs are copied, Result.Merged is set, an input root cannot be the whole root, and in tier B there
// is no control group: memory is watched, processes are counted by the kernel.
//
// What it does not do: it does not stage inputs (exec/stage), collect outputs (exec/collect), or choose limits (exec/run).
//
// Start reading at sandbox.go for the nouns and run_linux.go, Box.Run. TestRun in run_linux_test.go shows it whole.
package sandbox
