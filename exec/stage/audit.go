package stage

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// sample is one file to be compared with the digest it was made from, on behalf of a Root that is
// being released and keeps its layers until the comparison is done.
type sample struct {
	root  *Root
	layer *layer
	path  string // relative to the input root
	want  digest.Digest
}

// sampleTries bounds the search for a file that is neither too large nor absent.
const sampleTries = 8

// sample picks a file at random: down from the input root, at each directory one of its files or
// subdirectories. False when a few tries found none of at most maxBytes.
func (r *Root) sample(maxBytes int64) (sample, bool) {
	for range sampleTries {
		at, d := "", r.tree.Digest()
		for {
			dir := r.tree.Directory(d)
			n := len(dir.Files) + len(dir.Directories)
			if n == 0 {
				break
			}
			if k := rand.IntN(n); k >= len(dir.Files) {
				sub := &dir.Directories[k-len(dir.Files)]
				at, d = path.Join(at, sub.Name), sub.Digest
				continue
			} else if f := &dir.Files[k]; f.Digest.Size() <= maxBytes {
				return sample{root: r, layer: r.layerOf(at), path: path.Join(at, f.Name), want: f.Digest}, true
			}
			break
		}
	}
	return sample{}, false
}

// layerOf is the layer that holds the files of the directory at p: the deepest one at or above it.
func (r *Root) layerOf(p string) *layer {
	best := 0 // the root's layer holds everything that no other does
	for i := range r.plan.cuts {
		c := r.plan.cuts[i].path
		if (p == c || strings.HasPrefix(p, c+"/")) && len(c) >= len(r.plan.cuts[best].path) {
			best = i
		}
	}
	return r.layers[best]
}

// offer hands s to the auditor; false when it is busy or the cache is closed.
func (c *Cache) offer(s sample) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	select {
	case c.audit <- s:
		return true
	default:
		return false
	}
}

// auditor checks samples one at a time until stop.
func (c *Cache) auditor() {
	defer c.wg.Done()
	for {
		select {
		case <-c.stop:
			select {
			case s := <-c.audit:
				s.root.drop()
			default:
			}
			return
		case s := <-c.audit:
			c.check(s)
			s.root.drop()
		}
	}
}

// check compares one file with its digest and condemns its layer, and those that share the file, when they differ.
func (c *Cache) check(s sample) {
	got, err := hashFile(filepath.Join(c.dir, layersDir, s.layer.name), s.path, s.want)
	if err == nil && got == s.want {
		return
	}
	c.mu.Lock()
	for _, l := range c.sharing(s.layer, s.path) {
		c.condemn(l)
	}
	c.mu.Unlock()
	c.opt.OnIncident(Incident{Layer: s.layer.name, Path: s.path, Want: s.want, Got: got, Err: err})
}

// hashFile computes the digest of a file of a layer, reading at most one byte more than want has.
func hashFile(layerPath, name string, want digest.Digest) (digest.Digest, error) {
	root, err := os.OpenRoot(layerPath)
	if err != nil {
		return digest.Digest{}, err
	}
	defer root.Close()
	info, err := root.Lstat(name)
	if err != nil {
		return digest.Digest{}, err
	}
	if !info.Mode().IsRegular() {
		return digest.Digest{}, errors.New("not a regular file any more")
	}
	f, err := root.Open(name)
	if err != nil {
		return digest.Digest{}, err
	}
	defer f.Close()
	h := want.Function().NewHasher()
	if _, err := io.Copy(h, io.LimitReader(f, want.Size()+1)); err != nil {
		return digest.Digest{}, err
	}
	return h.Digest(), nil
}
