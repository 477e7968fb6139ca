//go:build !windows

package sandbox

// copiedMode is added to the mode of copied inputs: nothing, since what counts for replacing a file is its directory.
const copiedMode = 0
