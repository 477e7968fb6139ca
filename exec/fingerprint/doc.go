// Package fingerprint names the host tools an action sees, so that two machines that show the same can share results.
//
// Bazel does not hash /usr/bin/gcc; the node does. The Sum is a hash over Parts, each a short text about one thing:
//
//   - packages: name, version and architecture of what the package manager has installed
//   - program and library: compilers, linkers, interpreters, the loader and the C and C++ libraries, each by its build id,
//     or by the hash of its content where it has none
//   - unmanaged: names and sizes in places no package manager looks after (/usr/local, /opt)
//   - etc: content of the public copy of /etc that the sandbox shows
//   - release and isa: the distribution and the levels of the processor. The kernel is left out on purpose.
//
// Promises: equal Sums mean equal Parts. The same machine gives the same Sum until a tool changes. A part that cannot be
// read is an error, not an omission. A repeated computation costs milliseconds: files are known again by size, time and
// inode (Options.Cache). Everything is safe for concurrent use.
//
// What it does not do: it does not hash all of /usr; a file that somebody changed by hand behind the package manager's
// back is noticed only if it is a program or library of the kinds above.
//
// Start reading at fingerprint.go, Compute. TestChange shows it whole.
package fingerprint
