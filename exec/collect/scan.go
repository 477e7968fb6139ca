package collect

import (
	"fmt"
	"unicode/utf8"
)

// node is an entry with everything that was written below it. Unchanged input directories are not
// expanded: the input tree has them.
type node struct {
	*entry
	nodes []*node // of an upper directory, sorted by name
	blob  *blob   // of an upper file
}

// scanner lists outputs. Paths that several outputs contain are listed, and later ingested, once.
type scanner struct {
	view   *view
	limits Limits
	seen   map[string]*node
	blobs  []*blob
	count  int
	bytes  int64
}

// scan lists e and what is below it.
func (s *scanner) scan(e *entry, depth int) (*node, error) {
	if n := s.seen[e.rel]; n != nil {
		return n, nil
	}
	n := &node{entry: e}
	if err := s.charge(n, depth); err != nil {
		return nil, err
	}
	s.seen[e.rel] = n
	if e.info == nil {
		return n, nil
	}
	switch e.kind {
	case isFile:
		n.blob = &blob{rel: e.rel, executable: e.info.Mode()&0o111 != 0}
		s.blobs = append(s.blobs, n.blob)
	case isDir:
		children, err := s.view.children(e)
		if err != nil {
			return nil, err
		}
		for _, c := range children {
			below, err := s.scan(c, depth+1)
			if err != nil {
				return nil, err
			}
			n.nodes = append(n.nodes, below)
		}
	}
	return n, nil
}

// charge counts n against the limits, and refuses what no message can hold.
func (s *scanner) charge(n *node, depth int) error {
	if depth > s.limits.MaxDepth {
		return fmt.Errorf("%w: directories are nested more than %d deep", ErrTooLarge, s.limits.MaxDepth)
	}
	if n.info != nil && !(utf8.ValidString(n.rel) && utf8.ValidString(n.target)) {
		return &OutputError{Path: n.rel, Reason: "has a name or target that is not UTF-8, which a result cannot hold"}
	}
	if s.count++; s.count > s.limits.MaxNodes {
		return fmt.Errorf("%w: more than %d files and directories", ErrTooLarge, s.limits.MaxNodes)
	}
	if n.info != nil && n.kind == isFile {
		if s.bytes += n.info.Size(); s.bytes > s.limits.MaxBytes {
			return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, s.limits.MaxBytes)
		}
	}
	return nil
}
