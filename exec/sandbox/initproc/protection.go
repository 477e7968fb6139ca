package initproc

import (
	"slices"
	"strings"
)

// Protection says of a file or a directory with all below whether it may be written to.
type Protection struct {
	Path     string
	Writable bool
}

// Protections joins two lists in the order in which they have to be applied: parents before what is below them. A path in
// both lists is writable.
func Protections(readOnly, writable []string) []Protection {
	all := make([]Protection, 0, len(readOnly)+len(writable))
	for _, path := range readOnly {
		all = append(all, Protection{Path: path})
	}
	for _, path := range writable {
		all = append(all, Protection{Path: path, Writable: true})
	}
	slices.SortStableFunc(all, func(a, b Protection) int { return strings.Compare(a.Path, b.Path) })
	return all
}
