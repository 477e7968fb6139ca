//go:build !unix

package cas

import "os"

// links is unknown here, so files are copied.
func links(os.FileInfo) int { return 0 }

// takeOver has nothing to do here.
func takeOver(string) error { return nil }
