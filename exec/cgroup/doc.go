// Package cgroup puts the processes of one action into a control group: limits, accounting, and a kill that misses none.
//
// Nouns:
//   - Manager: what this machine offers: version 2 (a subtree delegated to the node), version 1 (as root), or None.
//   - Group: one action's control group, made before and removed after it.
//   - Limits, Stat: what is asked for, what was used.
//
// Promises: Find sweeps what a killed node left behind. Remove kills what is left in the group and waits for it, at most a
// second. A Group that does not limit something says so by Stat.Counted. A Manager whose directory was removed by another makes
// it anew for the next Group. All types are safe for concurrent use.
//
// What it does not do: it does not decide limits, and does not try to get a subtree delegated (that is systemd's part:
// Delegate=yes in the node's unit).
//
// Start reading at cgroup.go. TestConformance runs the fake and every real implementation this machine has.
package cgroup
