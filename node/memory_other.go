//go:build !linux

package node

import "runtime"

// residentMemory is what the Go runtime took from the system, in bytes.
func residentMemory() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
