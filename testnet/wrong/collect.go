//lint:file-ignore SA1019 fields that are deprecated are still sent by clients, and examined here

package wrong

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// function is the digest function of everything an action's result refers to.
func (w *workspace) function() digest.Function {
	if w.server.has(ResultFunctionIsSHA256) {
		return digest.SHA256
	}
	return w.action.digest.Function()
}

// streams stores what the command printed.
func (w *workspace) streams(r *repb.ActionResult) error {
	stdout, err := os.ReadFile(filepath.Join(w.base, "stdout"))
	if err != nil {
		return err
	}
	stderr, err := os.ReadFile(filepath.Join(w.base, "stderr"))
	if err != nil {
		return err
	}
	r.StdoutDigest = w.server.putNew(w.function(), stdout)
	r.StderrDigest = w.server.putNew(w.function(), stderr)
	return nil
}

// collect stores the outputs and lists them in r. It never leaves the input root, whatever links
// the command made.
func (w *workspace) collect(r *repb.ActionResult) error {
	s, c := w.server, w.action.command
	root, err := os.OpenRoot(w.root)
	if err != nil {
		return status.Errorf(codes.Internal, "open the input root: %v", err)
	}
	defer func() { _ = root.Close() }() // only read
	names := s.outputs(c)
	if s.has(UnlistedOutputs) {
		names = nil
		entries, err := fs.ReadDir(root.FS(), ".")
		if err != nil {
			return status.Errorf(codes.Internal, "list the input root: %v", err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		clean, _ := within(c.WorkingDirectory, name)
		if err := w.output(root, r, name, clean); err != nil {
			return err
		}
	}
	return nil
}

// output collects the output that the client calls name.
func (w *workspace) output(root *os.Root, r *repb.ActionResult, name, clean string) error {
	s := w.server
	if s.has(OutputsThroughLinks) {
		if data, err := os.ReadFile(filepath.Join(w.root, clean)); err == nil {
			r.OutputFiles = append(r.OutputFiles, &repb.OutputFile{Path: name, Digest: s.putNew(w.function(), data)})
			return nil
		}
	}
	info, err := root.Lstat(clean)
	if err == nil && s.has(SymlinksFollowed) && info.Mode()&fs.ModeSymlink != 0 {
		info, err = root.Stat(clean)
	}
	if err != nil || w.wasInput(clean, info) && s.has(InputsNotOutputs) {
		if s.has(MissingOutputFails) {
			return status.Errorf(codes.FailedPrecondition, "output %s is missing", name)
		}
		return nil // absent, or reached through a link out of the root
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return w.link(root, r, name, clean)
	case info.IsDir():
		return w.tree(root, r, name, clean)
	case info.Mode().IsRegular():
		node, err := w.node(root, clean, info)
		if err != nil || info.Size() == 0 && s.has(EmptyOutputLost) {
			return err
		}
		r.OutputFiles = append(r.OutputFiles, &repb.OutputFile{
			Path: name, Digest: node.Digest, IsExecutable: node.IsExecutable, NodeProperties: node.NodeProperties,
		})
	}
	return nil
}

// wasInput reports whether a file of the root directory is one of its inputs.
func (w *workspace) wasInput(clean string, info fs.FileInfo) bool {
	return info.Mode().IsRegular() && slices.ContainsFunc(w.action.dirs[w.action.root].GetFiles(),
		func(f *repb.FileNode) bool { return f.Name == clean })
}

func (w *workspace) link(root *os.Root, r *repb.ActionResult, name, clean string) error {
	target, err := root.Readlink(clean)
	if err != nil {
		return status.Errorf(codes.Internal, "read the link %s: %v", name, err)
	}
	if path.IsAbs(target) && w.server.has(AbsoluteSymlinksRefused) {
		return status.Errorf(codes.FailedPrecondition, "output %s is an absolute symlink", name)
	}
	link := &repb.OutputSymlink{Path: name, Target: target}
	if len(w.action.command.OutputPaths) > 0 {
		r.OutputSymlinks = append(r.OutputSymlinks, link)
	}
	info, err := root.Stat(clean)
	switch {
	case w.server.has(OldSymlinksUnset):
	case err == nil && info.IsDir():
		r.OutputDirectorySymlinks = append(r.OutputDirectorySymlinks, link)
	default:
		r.OutputFileSymlinks = append(r.OutputFileSymlinks, link)
	}
	return nil
}

// node stores a file.
func (w *workspace) node(root *os.Root, clean string, info fs.FileInfo) (*repb.FileNode, error) {
	s := w.server
	data, err := root.ReadFile(clean)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "read the output %s: %v", clean, err)
	}
	node := &repb.FileNode{
		Name: path.Base(clean), Digest: s.putNew(w.function(), data), IsExecutable: info.Mode()&0o111 != 0 && !s.has(ExecutableBitLost),
	}
	for _, property := range w.properties() {
		if node.NodeProperties == nil {
			node.NodeProperties = &repb.NodeProperties{}
		}
		switch property {
		case "mtime":
			node.NodeProperties.Mtime = timestamppb.New(info.ModTime())
		case "unix_mode":
			node.NodeProperties.UnixMode = wrapperspb.UInt32(uint32(info.Mode().Perm()))
		}
	}
	return node, nil
}

func (w *workspace) properties() []string {
	switch {
	case w.server.has(NodePropertiesIgnored):
		return nil
	case w.server.has(NodePropertiesAlways):
		return nodeProperties()
	default:
		return w.action.command.OutputNodeProperties
	}
}

// tree stores an output directory in the formats asked for.
func (w *workspace) tree(root *os.Root, r *repb.ActionResult, name, clean string) error {
	s := w.server
	b := &treeBuilder{workspace: w, root: root, seen: map[string]bool{}}
	top, err := b.visit(clean)
	if err != nil {
		return err
	}
	if len(b.post) == 1 && proto.Size(b.post[0]) == 0 && s.has(EmptyDirectoryLost) {
		return nil
	}
	out := &repb.OutputDirectory{Path: name}
	format := w.action.command.OutputDirectoryFormat
	if s.has(DirectoryOnlyIgnored) {
		format = repb.Command_TREE_ONLY
	}
	if format != repb.Command_DIRECTORY_ONLY && !s.has(TreeUnset) {
		tree := b.message()
		if out.TreeDigest, err = w.store(tree); err != nil {
			return err
		}
		out.IsTopologicallySorted = !s.has(TreeRepeats)
	}
	if format != repb.Command_TREE_ONLY {
		for _, dir := range b.post {
			if _, err := w.store(dir); err != nil {
				return err
			}
		}
		if out.RootDirectoryDigest = top; s.has(RootDigestWrong) {
			out.RootDirectoryDigest = out.TreeDigest
		}
	}
	r.OutputDirectories = append(r.OutputDirectories, out)
	return nil
}

func (w *workspace) store(m proto.Message) (*repb.Digest, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode %T: %v", m, err)
	}
	return w.server.putNew(w.function(), data), nil
}

// treeBuilder walks an output directory. Directories are appended to post when all below them have
// been; its reverse therefore has every parent before its children.
type treeBuilder struct {
	*workspace
	root *os.Root
	seen map[string]bool
	post []*repb.Directory
}

// message is the Tree of what was visited.
func (b *treeBuilder) message() *repb.Tree {
	dirs := slices.Clone(b.post)
	slices.Reverse(dirs)
	tree := &repb.Tree{Root: dirs[0], Children: dirs[1:]}
	switch {
	case b.server.has(TreeChildrenFirst):
		slices.Reverse(tree.Children)
	case b.server.has(TreeShallow):
		tree.Children = nil
	case b.server.has(TreeUnstable):
		tree.Root = proto.CloneOf(tree.Root)
		tree.Root.NodeProperties = &repb.NodeProperties{Properties: []*repb.NodeProperty{{Name: "id", Value: uuid.NewString()}}}
	}
	return tree
}

// visit reads one directory and all below it, and gives its digest.
func (b *treeBuilder) visit(at string) (*repb.Digest, error) {
	s := b.server
	handle, err := b.root.Open(at)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "open the output %s: %v", at, err)
	}
	defer func() { _ = handle.Close() }() // only read
	entries, err := handle.ReadDir(-1)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "list the output %s: %v", at, err)
	}
	slices.SortFunc(entries, func(x, y fs.DirEntry) int { return strings.Compare(x.Name(), y.Name()) })
	if s.has(TreeUnsorted) {
		slices.Reverse(entries)
	}
	dir := &repb.Directory{}
	for _, e := range entries {
		if err := b.entry(dir, path.Join(at, e.Name()), e); err != nil {
			return nil, err
		}
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(dir)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode the output %s: %v", at, err)
	}
	if !b.seen[string(data)] || s.has(TreeRepeats) {
		b.seen[string(data)] = true
		b.post = append(b.post, dir)
	}
	return b.function().Of(data).Proto(), nil
}

func (b *treeBuilder) entry(dir *repb.Directory, at string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return status.Errorf(codes.Internal, "examine the output %s: %v", at, err)
	}
	switch {
	case e.IsDir():
		d, err := b.visit(at)
		if err != nil {
			return err
		}
		dir.Directories = append(dir.Directories, &repb.DirectoryNode{Name: e.Name(), Digest: d})
	case info.Mode()&fs.ModeSymlink != 0 && !b.server.has(TreeSymlinksDropped):
		target, err := b.root.Readlink(at)
		if err != nil {
			return status.Errorf(codes.Internal, "read the link %s: %v", at, err)
		}
		dir.Symlinks = append(dir.Symlinks, &repb.SymlinkNode{Name: e.Name(), Target: target})
	case info.Mode().IsRegular():
		node, err := b.node(b.root, at, info)
		if err != nil {
			return err
		}
		dir.Files = append(dir.Files, node)
	}
	return nil
}
