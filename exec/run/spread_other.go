//go:build !linux

package run

// spread is for ext4 alone.
func spread(string) {}
