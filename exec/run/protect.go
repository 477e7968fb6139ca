package run

import (
	"fmt"
	"path"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
)

// subtreeReadOnly is the node property of a directory by which a client (BuildStream) says whether the action may
// change what is in it, "true" or "false". It holds for everything below, down to a directory that says otherwise.
const subtreeReadOnly = "SubtreeReadOnly"

// maxProtected bounds how often a tree may change between the two; each time costs the sandbox a mount.
const maxProtected = 256

// sandboxOwned are the directories of a whole root that the sandbox mounts over.
var sandboxOwned = map[string]bool{"dev": true, "proc": true, "tmp": true}

// protected lists the directories of t where protection begins, and those below where it ends, "." for the root.
func protected(t *tree.Tree, wholeRoot bool) (readOnly, writable []string, err error) {
	w := &protection{tree: t, marked: map[digest.Digest]bool{}, wholeRoot: wholeRoot}
	if !w.mark(t.Digest()) {
		return nil, nil, nil
	}
	if err := w.walk("", t.Digest(), false); err != nil {
		return nil, nil, err
	}
	return w.readOnly, w.writable, nil
}

// protection is one search. marked tells of each distinct directory whether it or one below says anything.
type protection struct {
	tree      *tree.Tree
	marked    map[digest.Digest]bool
	wholeRoot bool

	readOnly, writable []string
}

// mark looks at d and everything below it, each distinct directory once.
func (w *protection) mark(d digest.Digest) bool {
	if m, known := w.marked[d]; known {
		return m
	}
	dir := w.tree.Directory(d)
	_, m := readOnlyMark(dir)
	for i := range dir.Directories {
		m = w.mark(dir.Directories[i].Digest) || m
	}
	w.marked[d] = m
	return m
}

// walk goes down where something is said. state is what holds for the parent.
func (w *protection) walk(at string, d digest.Digest, state bool) error {
	dir := w.tree.Directory(d)
	if own, said := readOnlyMark(dir); said && own != state {
		state = own
		list := &w.writable
		if own {
			list = &w.readOnly
		}
		*list = append(*list, path.Join(".", at))
		if len(w.readOnly)+len(w.writable) > maxProtected {
			reason := fmt.Sprintf("%s changes more than %d times, last at %q", subtreeReadOnly, maxProtected, at)
			return &action.InvalidError{Field: "input_root_digest", Reason: reason}
		}
	}
	for i := range dir.Directories {
		sub := &dir.Directories[i]
		if !w.marked[sub.Digest] || (w.wholeRoot && at == "" && sandboxOwned[sub.Name]) {
			continue
		}
		if err := w.walk(path.Join(at, sub.Name), sub.Digest, state); err != nil {
			return err
		}
	}
	return nil
}

// readOnlyMark is what dir itself says, if anything.
func readOnlyMark(dir *tree.Directory) (readOnly, said bool) {
	if dir.Properties == nil {
		return false, false
	}
	for _, p := range dir.Properties.Properties {
		if p.Name == subtreeReadOnly {
			return p.Value == "true", true
		}
	}
	return false, false
}
