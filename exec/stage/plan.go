package stage

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"path"
	"slices"
	"strings"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// minCut is the smallest number of nodes worth a layer, maxLayers what a plan aims to stay below:
// an overlay's lowerdir option is limited to one page, and every lookup asks every layer.
const (
	minCut    = 128
	maxLayers = 48
)

// cut is one layer of a plan: the directory at path, without the subtrees that are layers themselves.
type cut struct {
	name     string // of the layer's directory
	path     string // relative to the input root, "" for the root
	digest   digest.Digest
	excluded []string // paths of the subtrees cut off, relative to path, sorted
	modes    Modes
}

// plan is how one input root is cut. Immutable.
type plan struct {
	cuts []cut // parents before children: the order of the lower directories
}

// planner computes a plan. residual holds, per directory, the nodes left in its parent's layer; it is
// 0 for a directory that is a layer of its own.
type planner struct {
	tree     *tree.Tree
	modes    Modes
	salt     []byte
	limit    int
	residual map[digest.Digest]int
	hasCut   map[digest.Digest]bool // it or something below it is a layer of its own
	cuts     []cut
}

// planOf cuts t. Equal trees have equal plans, and a subtree at the same path is cut alike in every
// tree of similar size.
func planOf(t *tree.Tree, modes Modes, salt []byte) *plan {
	p := &planner{tree: t, modes: modes, salt: salt, limit: minCut}
	for {
		p.residual, p.hasCut = map[digest.Digest]int{}, map[digest.Digest]bool{}
		p.cuts = p.cuts[:0]
		p.measure(t.Digest())
		p.collect("", t.Digest(), true)
		if len(p.cuts) <= maxLayers {
			return &plan{cuts: slices.Clone(p.cuts)}
		}
		p.limit *= 2
	}
}

// measure computes residual for d and everything below it, each distinct directory once.
func (p *planner) measure(d digest.Digest) int {
	if n, known := p.residual[d]; known {
		return n
	}
	dir := p.tree.Directory(d)
	n, hasCut := 1+len(dir.Files)+len(dir.Symlinks), false
	for i := range dir.Directories {
		sub := dir.Directories[i].Digest
		n += p.measure(sub)
		hasCut = hasCut || p.hasCut[sub]
	}
	if n >= p.limit {
		n, hasCut = 0, true
	}
	p.residual[d], p.hasCut[d] = n, hasCut
	return n
}

// collect appends the layers of the subtree at dirPath, parents first, and returns the paths that its
// parent's layer must leave out.
func (p *planner) collect(dirPath string, d digest.Digest, isRoot bool) []string {
	dir := p.tree.Directory(d)
	own := isRoot || p.residual[d] == 0
	at := len(p.cuts)
	if own {
		p.cuts = append(p.cuts, cut{path: dirPath, digest: d, modes: p.modes})
	}
	var excluded []string
	for i := range dir.Directories {
		sub := &dir.Directories[i]
		if !p.hasCut[sub.Digest] {
			continue
		}
		excluded = append(excluded, p.collect(path.Join(dirPath, sub.Name), sub.Digest, false)...)
	}
	if !own {
		return excluded
	}
	c := &p.cuts[at]
	for i, e := range excluded {
		excluded[i] = strings.TrimPrefix(strings.TrimPrefix(e, dirPath), "/")
	}
	slices.Sort(excluded)
	c.excluded = excluded
	c.name = p.nameOf(c)
	return []string{dirPath}
}

// nameOf derives a layer's name from everything that determines its content. The salt is secret to
// this cache, so 80 bits suffice: nobody can search for two directories with one name elsewhere.
func (p *planner) nameOf(c *cut) string {
	h := sha256.New()
	field := func(b []byte) {
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	field(p.salt)
	field([]byte(c.path))
	field([]byte(c.digest.Function().String() + " " + c.digest.String()))
	for _, e := range c.excluded {
		field([]byte(e))
	}
	if c.modes != ReadOnly {
		field([]byte{0, byte(c.modes)}) // no path has a zero byte
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:nameBytes]))
}

// nameBytes make a name of nameSize characters, all in [a-z2-7]: nothing to escape in a mount option,
// and distinct on file systems that fold case.
const (
	nameBytes = 10
	nameSize  = 16
)

// splitPath gives the elements of a clean relative path, none for "".
func splitPath(p string) []string {
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}
