//go:build !linux

package power

// MachineReaders gives none: on this system nothing is known of the machine yet, and hours and pauses alone
// decide.
func MachineReaders(Usage) ([]Reader, func() error) {
	return nil, func() error { return nil }
}
