package stage

import "io/fs"

// Modes says which modes files without one of their own have. Layers with different ones are different layers.
type Modes uint8

// The modes of files, and of executable ones.
const (
	ReadOnly Modes = iota // 0444 and 0555: an action that changes an input by mistake notices
	Writable              // 0644 and 0755: a root file system, in which a build may write to what it finds
)

// Mode is the mode of a file.
func (m Modes) Mode(executable bool) fs.FileMode {
	mode := fs.FileMode(0o444)
	if m == Writable {
		mode = 0o644
	}
	if executable {
		mode |= 0o111
	}
	return mode
}
