package stage

import (
	"io/fs"
	"path"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// blockSize is what a file's size is rounded up to when layers are measured, and what a directory or
// link counts.
const blockSize = 4096

// entries is the content of one layer, paths relative to the input root.
type entries struct {
	dirs  []*dirEntry // parents before children; "." first
	links []linkEntry
	bytes int64
	nodes int
}

type dirEntry struct {
	path  string
	mode  fs.FileMode
	mtime time.Time
	files []tree.File
}

type linkEntry struct {
	path, target string
	mtime        time.Time
}

// entriesOf lists what belongs to the layer of cut c.
func entriesOf(t *tree.Tree, c *cut) *entries {
	e := &entries{}
	e.addDir(".")
	parent := ""
	for _, name := range splitPath(c.path) {
		if parent != "" {
			e.addDir(parent)
		}
		parent = path.Join(parent, name)
	}
	visit(t, c, func(rel string, dir *tree.Directory) {
		at := path.Join(c.path, rel)
		var d *dirEntry
		if at == "" {
			d = e.dirs[0]
		} else {
			d = e.addDir(at)
		}
		d.mode, d.mtime = dirAttributes(dir)
		d.files = dir.Files
		for i := range dir.Files {
			e.nodes++
			e.bytes += (dir.Files[i].Digest.Size() + blockSize - 1) / blockSize * blockSize
		}
		for i := range dir.Symlinks {
			s := &dir.Symlinks[i]
			mtime := tree.ModTime
			if s.Properties != nil && s.Properties.Mtime != nil {
				mtime = s.Properties.Mtime.AsTime()
			}
			e.links = append(e.links, linkEntry{path: path.Join(at, s.Name), target: s.Target, mtime: mtime})
			e.nodes++
			e.bytes += blockSize
		}
	})
	return e
}

func (e *entries) addDir(p string) *dirEntry {
	d := &dirEntry{path: p, mode: 0o755, mtime: tree.ModTime}
	e.dirs = append(e.dirs, d)
	e.nodes++
	e.bytes += blockSize
	return d
}

// appendFiles adds the digests of the files of cut c that seen does not hold yet.
func appendFiles(ds []digest.Digest, seen map[digest.Digest]bool, t *tree.Tree, c *cut) []digest.Digest {
	visit(t, c, func(_ string, dir *tree.Directory) {
		for i := range dir.Files {
			if d := dir.Files[i].Digest; !seen[d] {
				seen[d] = true
				ds = append(ds, d)
			}
		}
	})
	return ds
}

// visit calls f for each directory of the layer of cut c, parents first, with its path relative to
// c.path ("" for the first).
func visit(t *tree.Tree, c *cut, f func(rel string, dir *tree.Directory)) {
	excluded := make(map[string]bool, len(c.excluded))
	for _, e := range c.excluded {
		excluded[e] = true
	}
	var walk func(rel string, d digest.Digest)
	walk = func(rel string, d digest.Digest) {
		dir := t.Directory(d)
		f(rel, dir)
		for i := range dir.Directories {
			sub := &dir.Directories[i]
			if p := path.Join(rel, sub.Name); !excluded[p] {
				walk(p, sub.Digest)
			}
		}
	}
	walk("", c.digest)
}

// dirAttributes are the mode and time of a directory. Its owner can always list and enter it.
func dirAttributes(dir *tree.Directory) (fs.FileMode, time.Time) {
	mode, mtime := fs.FileMode(0o755), tree.ModTime
	if p := dir.Properties; p != nil {
		if p.UnixMode != nil {
			mode = fs.FileMode(p.UnixMode.Value)&0o777 | 0o500
		}
		if p.Mtime != nil {
			mtime = p.Mtime.AsTime()
		}
	}
	return mode, mtime
}
