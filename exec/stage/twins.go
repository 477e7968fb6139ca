package stage

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// maxTwins bounds the memory of twins: about 200 bytes each.
const maxTwins = 32 << 10

// twin is a small file as a layer shows it. The path belongs to it: two paths of one input root never share an inode,
// or tools that tell files by their inode (tar, clang) would see hard links that nobody made.
type twin struct {
	digest digest.Digest
	mode   fs.FileMode
	path   string // relative to the input root
}

// twins are small files that complete layers have, so that the next layer with the same file at the same path links it
// instead of creating it: roots that are mostly alike have many of those, and a new inode is what a small file costs.
// Only files with tree.ModTime and the cache's owner are here. Safe for concurrent use.
type twins struct {
	mu sync.Mutex // guards in
	in map[twin]string
}

// find names a layer that has the file, "" when none is known.
func (s *twins) find(t twin) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in[t]
}

// add notes that a layer has the files.
func (s *twins) add(layer string, ts []twin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil {
		s.in = map[twin]string{}
	}
	for _, t := range ts {
		for old := range s.in { // any one will do
			if len(s.in) < maxTwins {
				break
			}
			delete(s.in, old)
		}
		s.in[t] = layer
	}
}

// drop forgets one that could not be linked: its layer is gone, or its inode has all the names it may have.
func (s *twins) drop(t twin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.in, t)
}

// linkTwin gives the file t the inode that another layer has for it, and reports whether it did.
func (b *builder) linkTwin(at *os.File, name string, t twin) bool {
	layer := b.cache.twins.find(t)
	if layer == "" {
		return false
	}
	if linkInto(filepath.Join(b.cache.dir, layersDir, layer, filepath.FromSlash(t.path)), at, name) != nil {
		b.cache.twins.drop(t)
		return false
	}
	return true
}

// sharing gives the layers whose file at path is the same inode as l's, l among them. Called with mu held.
func (c *Cache) sharing(l *layer, path string) []*layer {
	shared := []*layer{l}
	at := func(l *layer) string { return filepath.Join(c.dir, layersDir, l.name, filepath.FromSlash(path)) }
	bad, err := os.Lstat(at(l))
	if err != nil {
		return shared
	}
	for _, other := range c.layers {
		if other == l {
			continue
		}
		if info, err := os.Lstat(at(other)); err == nil && os.SameFile(bad, info) {
			shared = append(shared, other)
		}
	}
	return shared
}
