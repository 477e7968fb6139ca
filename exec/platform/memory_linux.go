package platform

import "golang.org/x/sys/unix"

// memoryBytes is the size of the machine's memory, 0 when the kernel does not say.
func memoryBytes() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}
