package node

import (
	"fmt"
	"os"
)

// residentMemory is the memory of this process that is in RAM, in bytes; 0 when not known.
func residentMemory() int64 {
	data, err := os.ReadFile("/proc/self/statm") // proc(5): size resident ..., in pages
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(data), &size, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}
