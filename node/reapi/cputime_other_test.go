//go:build !linux

package reapi

import "time"

// cpuTime is not measured here.
func cpuTime() time.Duration { return 0 }
