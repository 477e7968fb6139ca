package tree

import (
	"errors"
	"fmt"
	"math"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Longest name of a node and longest target of a symlink, in bytes: what Linux can create.
const (
	MaxName   = 255
	MaxTarget = 4095
)

// ModTime is when whatever is laid out without a time of its own was changed last, the same for every client because hardlinked
// files share their times. BuildStream wants this one.
var ModTime = time.Unix(1321009871, 0).UTC() // 2011-11-11T11:11:11Z

// ErrInvalid is wrapped by every error about a malformed, unsafe or too large tree.
var ErrInvalid = errors.New("invalid tree")

// InvalidError tells what is wrong with a tree and where. It wraps ErrInvalid.
type InvalidError struct {
	Path   string // of the node, relative to the root of what was decoded; "" is the root itself
	Reason string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("%s: %s: %s", ErrInvalid, place(e.Path), e.Reason)
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Unwrap() error { return ErrInvalid }

// place abbreviates a path for a message: a hostile one may be megabytes long.
func place(path string) string {
	const most = 300
	if path == "" {
		return "root"
	}
	if len(path) > most {
		return fmt.Sprintf("%q...", path[:most])
	}
	return fmt.Sprintf("%q", path)
}

// MissingError lists the directories that the Getter did not have, each once, in the order met.
type MissingError struct{ Digests []digest.Digest }

func (e *MissingError) Error() string {
	if len(e.Digests) == 0 {
		return "missing directories"
	}
	return fmt.Sprintf("%d missing, the first is %s", len(e.Digests), e.Digests[0])
}

// Directory is a checked Directory message. Nobody may change it.
type Directory struct {
	Files       []File
	Directories []Subdirectory
	Symlinks    []Symlink
	// Properties are the directory's own, nil for none. Known and unknown ones alike are kept: the
	// caller refuses what it does not honour.
	Properties *repb.NodeProperties

	raw    string // the encoded message, as it came
	totals Totals // zero until a Tree is made
}

// File is a regular file.
type File struct {
	Name       string
	Digest     digest.Digest
	Executable bool
	Properties *repb.NodeProperties // nil for none
}

// Subdirectory refers to another Directory.
type Subdirectory struct {
	Name   string
	Digest digest.Digest
}

// Symlink is a symbolic link. Target is not empty and has no NUL; it may be absolute and may point
// outside the tree.
type Symlink struct {
	Name, Target string
	Properties   *repb.NodeProperties // nil for none
}

// Totals tell what a Directory is when expanded: shared subdirectories count as often as they are met.
type Totals struct {
	Nodes int64 // files, symlinks and directories, the directory itself included
	Files int64
	Bytes int64 // of file contents; the largest int64 stands for itself and everything above
	Depth int   // levels of directories, 1 without subdirectories
}

// Totals of a Directory that came out of a Tree; zero for one that Decode returned.
func (d *Directory) Totals() Totals { return d.totals }

// Encoded is the message in wire format, byte for byte as it came.
func (d *Directory) Encoded() []byte { return []byte(d.raw) }

// entries is the number of nodes directly inside.
func (d *Directory) entries() int { return len(d.Files) + len(d.Directories) + len(d.Symlinks) }

// sum adds two numbers that are not negative and stops at the largest int64.
func sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
