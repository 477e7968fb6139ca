//go:build !unix

package fingerprint

import "io/fs"

// inode is not known here.
func inode(fs.FileInfo) string { return "" }
