//go:build !linux

package collect

import "io/fs"

// There is no overlay here: the upper directory is always the merged one, without marks.

func isWhiteout(fs.FileInfo) bool { return false }

func whiteoutFile(string) (bool, error) { return false, nil }

func isOpaque(string) (bool, error) { return false, nil }
