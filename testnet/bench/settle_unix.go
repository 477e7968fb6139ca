//go:build unix

package main

import "golang.org/x/sys/unix"

// warm is how many bytes settle touches: more than a round writes.
const warm = 512 << 20

// settle gives every subject the same ground to write on: what was written earlier is on the disk, and the page cache
// has pages to grow into that the machine's own host has handed out already. In a virtual machine the first touch of a
// free page costs more than everything else a write does, and would be charged to whoever comes first.
func settle() {
	unix.Sync()
	memory, err := unix.Mmap(-1, 0, warm, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return // colder ground, for all alike
	}
	for at := 0; at < len(memory); at += unix.Getpagesize() {
		memory[at] = 1
	}
	_ = unix.Munmap(memory)
}
