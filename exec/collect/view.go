package collect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// kind is what a name stands for. Nothing else may appear in outputs.
type kind uint8

const (
	isFile kind = iota
	isDir
	isLink
)

// maxPath bounds the path of a file in the upper directory: one byte less than the kernel takes at once.
const maxPath = 4095

// entry is one name of the merged view. info is set when the upper directory has it; then input is the
// directory beneath, if the two merge. Otherwise it is an unchanged part of the input tree.
type entry struct {
	rel  string // relative to the root, "" for the root
	kind kind
	info fs.FileInfo // of the upper directory, nil when the input's

	file   *tree.File      // input only
	link   *tree.Symlink   // input only
	input  *tree.Directory // what the input has at rel
	digest digest.Digest   // of input
	target string          // of a link
}

func (e *entry) name() string { return path.Base(e.rel) }

// view is the upper directory over the input tree.
type view struct {
	dir   string // the upper directory
	root  *os.Root
	input *tree.Tree // nil when the upper directory is everything
	mount []string   // names in the root that were mounted over: only the input counts there
}

// mountPoints of a whole root: what an action sees there is the sandbox's.
var mountPoints = []string{"dev", "proc", "tmp"}

func openView(s Source, wholeRoot bool) (*view, error) {
	v := &view{dir: s.Upper, input: s.Input}
	if wholeRoot {
		v.mount = mountPoints
	}
	if s.Below != "" {
		if err := v.descend(s.Below); err != nil {
			return nil, err
		}
	}
	info, err := os.Lstat(v.dir)
	if err != nil {
		return nil, fmt.Errorf("open upper directory: %w", err)
	}
	if info.Mode().Perm()&0o700 != 0o700 {
		if err := os.Chmod(v.dir, 0o700); err != nil {
			return nil, fmt.Errorf("open upper directory: %w", err)
		}
	}
	if v.root, err = os.OpenRoot(v.dir); err != nil {
		return nil, fmt.Errorf("open upper directory: %w", err)
	}
	return v, nil
}

// descend makes the directory below of the upper directory the root of the view. Where the action wrote
// nothing into it, it is made; where the action put something else in its place, there are no outputs.
func (v *view) descend(below string) error {
	v.dir = filepath.Join(v.dir, below)
	info, err := os.Lstat(v.dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Mkdir(v.dir, 0o700)
		if err == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("open upper directory: %w", err)
	}
	if !info.IsDir() {
		return &OutputError{Path: "/" + below, Reason: "is the input root, and the action removed or replaced it"}
	}
	opaque, err := isOpaque(v.dir)
	if err != nil {
		return fmt.Errorf("open upper directory: %w", err)
	}
	if opaque {
		v.input = nil
	}
	return nil
}

func (v *view) close() { v.root.Close() }

// top is the root of the view.
func (v *view) top() (*entry, error) {
	info, err := v.root.Lstat(".")
	if err != nil {
		return nil, err
	}
	e := &entry{kind: isDir, info: info}
	if v.input != nil {
		e.input, e.digest = v.input.Root(), v.input.Digest()
	}
	return e, nil
}

// child looks name up in the directory dir; nil when there is none.
func (v *view) child(dir *entry, name string) (*entry, error) {
	if dir.info == nil || v.mounted(dir, name) {
		return v.inputChild(dir, name), nil
	}
	rel := path.Join(dir.rel, name)
	info, err := v.root.Lstat(filepath.FromSlash(rel))
	if errors.Is(err, fs.ErrNotExist) {
		return v.inputChild(dir, name), nil
	}
	if err != nil {
		return nil, err
	}
	return v.upperEntry(dir, rel, info)
}

// children lists the directory dir, sorted by name.
func (v *view) children(dir *entry) ([]*entry, error) {
	list := v.inputChildren(dir)
	if dir.info == nil {
		return list, nil
	}
	below := make(map[string]*entry, len(list))
	for _, e := range list {
		below[e.name()] = e
	}
	names, err := v.upperNames(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if v.mounted(dir, name) {
			continue
		}
		rel := path.Join(dir.rel, name)
		info, err := v.root.Lstat(filepath.FromSlash(rel))
		if err != nil {
			return nil, err
		}
		e, err := v.upperEntry(dir, rel, info)
		if err != nil {
			return nil, err
		}
		delete(below, name)
		if e != nil {
			below[name] = e
		}
	}
	list = list[:0]
	for _, e := range below {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.rel, b.rel) })
	return list, nil
}

func (v *view) mounted(dir *entry, name string) bool {
	return dir.rel == "" && slices.Contains(v.mount, name)
}

// upperNames reads the names in the upper directory at dir.
func (v *view) upperNames(dir *entry) ([]string, error) {
	at := filepath.FromSlash(path.Join(".", dir.rel))
	f, err := v.root.Open(at)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// upperEntry interprets what the upper directory has at rel; nil for the mark of a removed name. What
// its owner could not read is made readable; the entry keeps the mode the action had set.
func (v *view) upperEntry(dir *entry, rel string, info fs.FileInfo) (*entry, error) {
	e := &entry{rel: rel, info: info}
	full := filepath.Join(v.dir, filepath.FromSlash(rel))
	if len(full) > maxPath {
		return nil, &OutputError{Path: rel[:80] + "...", Reason: "has a path too long to be read"}
	}
	var err error
	switch mode := info.Mode(); {
	case mode.IsRegular():
		if info.Size() == 0 && v.input != nil {
			if gone, err := whiteoutFile(full); gone || err != nil {
				return nil, err
			}
		}
		e.kind = isFile
		if mode.Perm()&0o400 == 0 {
			err = v.root.Chmod(filepath.FromSlash(rel), mode.Perm()|0o400)
		}
	case mode.IsDir():
		e.kind = isDir
		if mode.Perm()&0o700 != 0o700 {
			err = v.root.Chmod(filepath.FromSlash(rel), mode.Perm()|0o700)
		}
		if err == nil && v.input != nil {
			err = v.mergeInto(e, dir, full)
		}
	case mode&fs.ModeSymlink != 0:
		e.kind = isLink
		e.target, err = v.root.Readlink(filepath.FromSlash(rel))
	case v.input != nil && isWhiteout(info):
		return nil, nil
	default:
		err = &OutputError{Path: rel, Reason: "is a " + describe(mode) + ", which a result cannot hold"}
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// mergeInto finds the input directory that shows through the upper directory e, if any.
func (v *view) mergeInto(e, dir *entry, full string) error {
	below := v.inputChild(dir, e.name())
	if below == nil || below.kind != isDir {
		return nil
	}
	opaque, err := isOpaque(full)
	if err != nil || opaque {
		return err
	}
	e.input, e.digest = below.input, below.digest
	return nil
}

// inputChild looks name up in the input directory beneath dir.
func (v *view) inputChild(dir *entry, name string) *entry {
	if dir.input == nil {
		return nil
	}
	rel := path.Join(dir.rel, name)
	for i := range dir.input.Directories {
		if d := &dir.input.Directories[i]; d.Name == name {
			return v.inputDir(rel, d)
		}
	}
	for i := range dir.input.Files {
		if f := &dir.input.Files[i]; f.Name == name {
			return &entry{rel: rel, kind: isFile, file: f}
		}
	}
	for i := range dir.input.Symlinks {
		if s := &dir.input.Symlinks[i]; s.Name == name {
			return &entry{rel: rel, kind: isLink, link: s, target: s.Target}
		}
	}
	return nil
}

func (v *view) inputDir(rel string, d *tree.Subdirectory) *entry {
	return &entry{rel: rel, kind: isDir, input: v.input.Directory(d.Digest), digest: d.Digest}
}

// inputChildren lists the input directory beneath dir, sorted by name.
func (v *view) inputChildren(dir *entry) []*entry {
	if dir.input == nil {
		return nil
	}
	in := dir.input
	list := make([]*entry, 0, len(in.Files)+len(in.Directories)+len(in.Symlinks))
	for i := range in.Directories {
		list = append(list, v.inputDir(path.Join(dir.rel, in.Directories[i].Name), &in.Directories[i]))
	}
	for i := range in.Files {
		list = append(list, &entry{rel: path.Join(dir.rel, in.Files[i].Name), kind: isFile, file: &in.Files[i]})
	}
	for i := range in.Symlinks {
		s := &in.Symlinks[i]
		list = append(list, &entry{rel: path.Join(dir.rel, s.Name), kind: isLink, link: s, target: s.Target})
	}
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.rel, b.rel) })
	return list
}

func describe(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeDevice != 0:
		return "device"
	default:
		return "special file"
	}
}
