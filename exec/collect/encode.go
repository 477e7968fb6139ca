package collect

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// encoder makes Directory and Tree messages. Equal directories are encoded once.
type encoder struct {
	fn              digest.Function
	input           *tree.Tree
	inputTime       time.Time // of input nodes without one of their own
	inputMode       uint32    // likewise of files; executable ones have 0111 as well
	mtime, unixMode bool      // node properties asked for
	dirs            map[digest.Digest]*directory
	unchanged       map[digest.Digest]digest.Digest // of an input directory, as sent and as encoded here
	files           map[digest.Digest]string        // unchanged input files, and where one of each is
}

// directory is an encoded Directory message.
type directory struct {
	data     []byte
	children []digest.Digest
}

// directory encodes the directory n with everything below, and returns its digest.
func (e *encoder) directory(n *node) (digest.Digest, error) {
	if n.info == nil {
		return e.inputDirectory(n.rel, n.digest)
	}
	m := &repb.Directory{NodeProperties: e.upperProperties(n.info)}
	for _, c := range n.nodes {
		switch c.kind {
		case isFile:
			m.Files = append(m.Files, e.file(c))
		case isLink:
			m.Symlinks = append(m.Symlinks, e.link(c.name(), c))
		case isDir:
			d, err := e.directory(c)
			if err != nil {
				return digest.Digest{}, err
			}
			m.Directories = append(m.Directories, &repb.DirectoryNode{Name: c.name(), Digest: d.Proto()})
		}
	}
	return e.add(m)
}

// inputDirectory encodes an unchanged directory of the input at rel. It keeps the bytes and the digest
// the client sent, unless node properties are asked for, or present without being asked for.
func (e *encoder) inputDirectory(rel string, sent digest.Digest) (digest.Digest, error) {
	if d, known := e.unchanged[sent]; known {
		return d, nil
	}
	dir := e.input.Directory(sent)
	same := !e.mtime && !e.unixMode && dir.Properties == nil
	for i := range dir.Files {
		f := &dir.Files[i]
		same = same && f.Properties == nil
		if _, known := e.files[f.Digest]; !known {
			e.files[f.Digest] = path.Join(rel, f.Name)
		}
	}
	for i := range dir.Symlinks {
		same = same && dir.Symlinks[i].Properties == nil
	}
	children := make([]digest.Digest, len(dir.Directories))
	for i := range dir.Directories {
		sub := &dir.Directories[i]
		d, err := e.inputDirectory(path.Join(rel, sub.Name), sub.Digest)
		if err != nil {
			return digest.Digest{}, err
		}
		children[i] = d
		same = same && d == sub.Digest
	}
	d, err := sent, error(nil)
	if same {
		e.dirs[sent] = &directory{data: dir.Encoded(), children: children}
	} else {
		d, err = e.add(e.inputMessage(rel, dir, children))
	}
	e.unchanged[sent] = d
	return d, err
}

// inputMessage is the message of an input directory with other properties than the client sent.
func (e *encoder) inputMessage(rel string, dir *tree.Directory, children []digest.Digest) *repb.Directory {
	m := &repb.Directory{NodeProperties: e.inputProperties(dir.Properties, 0o755)}
	for i := range dir.Files {
		m.Files = append(m.Files, e.inputFile(path.Join(rel, dir.Files[i].Name), &dir.Files[i]))
	}
	for i := range dir.Symlinks {
		s := &dir.Symlinks[i]
		m.Symlinks = append(m.Symlinks, &repb.SymlinkNode{Name: s.Name, Target: s.Target, NodeProperties: e.inputProperties(s.Properties, 0o777)})
	}
	for i := range dir.Directories {
		m.Directories = append(m.Directories, &repb.DirectoryNode{Name: dir.Directories[i].Name, Digest: children[i].Proto()})
	}
	return m
}

// add sorts and serialises m. Lists are in the canonical order, by name.
func (e *encoder) add(m *repb.Directory) (digest.Digest, error) {
	slices.SortFunc(m.Files, func(a, b *repb.FileNode) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Directories, func(a, b *repb.DirectoryNode) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Symlinks, func(a, b *repb.SymlinkNode) int { return strings.Compare(a.Name, b.Name) })
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return digest.Digest{}, fmt.Errorf("encode output directory: %w", err) // a name that is not UTF-8
	}
	d := e.fn.Of(data)
	if e.dirs[d] != nil {
		return d, nil
	}
	dir := &directory{data: data}
	for _, sub := range m.Directories {
		child, err := digest.FromProto(e.fn, sub.Digest)
		if err != nil {
			return digest.Digest{}, err
		}
		dir.children = append(dir.children, child)
	}
	e.dirs[d] = dir
	return d, nil
}

// below lists root and every distinct directory below it, parents before children.
func (e *encoder) below(root digest.Digest) []digest.Digest {
	var order []digest.Digest
	seen := map[digest.Digest]bool{}
	var visit func(d digest.Digest)
	visit = func(d digest.Digest) {
		if seen[d] {
			return
		}
		seen[d] = true
		children := e.dirs[d].children
		for i := len(children) - 1; i >= 0; i-- {
			visit(children[i])
		}
		order = append(order, d)
	}
	visit(root)
	slices.Reverse(order)
	return order
}

// Fields of message Tree.
const (
	treeRoot     = 1
	treeChildren = 2
)

// tree serialises the Tree message of root.
func (e *encoder) tree(root digest.Digest) []byte {
	field, data := protowire.Number(treeRoot), []byte(nil)
	for _, d := range e.below(root) {
		data = protowire.AppendTag(data, field, protowire.BytesType)
		data = protowire.AppendBytes(data, e.dirs[d].data)
		field = treeChildren
	}
	return data
}

// file encodes a file that is in a directory.
func (e *encoder) file(n *node) *repb.FileNode {
	if n.info == nil {
		return e.inputFile(n.rel, n.entry.file)
	}
	return &repb.FileNode{
		Name: n.name(), Digest: n.blob.digest.Proto(), IsExecutable: n.blob.executable, NodeProperties: e.upperProperties(n.info),
	}
}

func (e *encoder) inputFile(rel string, f *tree.File) *repb.FileNode {
	if _, known := e.files[f.Digest]; !known {
		e.files[f.Digest] = rel
	}
	mode := e.inputMode
	if f.Executable {
		mode |= 0o111
	}
	return &repb.FileNode{
		Name: f.Name, Digest: f.Digest.Proto(), IsExecutable: f.Executable, NodeProperties: e.inputProperties(f.Properties, mode),
	}
}

func (e *encoder) link(name string, n *node) *repb.SymlinkNode {
	s := &repb.SymlinkNode{Name: name, Target: n.target}
	if n.info != nil {
		s.NodeProperties = e.upperProperties(n.info)
	} else {
		s.NodeProperties = e.inputProperties(n.entry.link.Properties, 0o777)
	}
	return s
}

// upperProperties are the node properties asked for of something the action wrote; nil for none.
func (e *encoder) upperProperties(info fs.FileInfo) *repb.NodeProperties {
	return e.properties(info.ModTime(), uint32(info.Mode().Perm()))
}

// inputProperties are the node properties asked for of an unchanged input, as the action saw it.
func (e *encoder) inputProperties(own *repb.NodeProperties, mode uint32) *repb.NodeProperties {
	mtime := e.inputTime
	if own != nil {
		if own.Mtime != nil {
			mtime = own.Mtime.AsTime()
		}
		if own.UnixMode != nil {
			mode = own.UnixMode.Value & 0o777
		}
	}
	return e.properties(mtime, mode)
}

func (e *encoder) properties(mtime time.Time, mode uint32) *repb.NodeProperties {
	if !e.mtime && !e.unixMode {
		return nil
	}
	p := &repb.NodeProperties{}
	if e.mtime {
		p.Mtime = timestamppb.New(mtime)
	}
	if e.unixMode {
		p.UnixMode = wrapperspb.UInt32(mode)
	}
	return p
}
