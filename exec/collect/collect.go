package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
)

// ErrTooLarge is wrapped when outputs exceed Limits.
var ErrTooLarge = errors.New("outputs are too large")

// OutputError says which output of the action cannot be part of a result, and why.
type OutputError struct {
	Path   string // the output as the client named it, or what is wrong below it
	Reason string // completes a sentence that begins with the path
}

func (e *OutputError) Error() string { return fmt.Sprintf("output %q %s", e.Path, e.Reason) }

// Blobs is what collecting needs of the blob store.
type Blobs interface {
	// Missing returns those of ds that are not there, and keeps the others from being evicted soon.
	Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error)
	// PutFile takes in a file that nobody writes any more; the file may be moved or linked.
	PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error)
	// PutAll stores data[i] under ds[i].
	PutAll(ctx context.Context, ds []digest.Digest, data [][]byte) error
}

// Source is what a run left.
type Source struct {
	Upper     string      // absolute path of the upper directory, or of the whole root when Input is nil
	Input     *tree.Tree  // what the upper directory lies over, nil when it is complete by itself
	Lowers    []string    // the layers that hold the input's files
	InputTime time.Time   // mtime that input nodes without one of their own were shown with
	InputMode fs.FileMode // likewise of files; executable ones had 0111 as well
	Scratch   string      // an existing directory for copies, on the store's file system
	Below     string      // where in Upper the input root is, when it stands in a root of another origin; "": it is Upper
}

// Limits of the outputs of one action; zero values are the defaults given.
type Limits struct {
	MaxNodes int   // files, links and directories: 1,000,000
	MaxBytes int64 // of all files written together: 64 GiB
	MaxDepth int   // of directories: 256
	Parallel int   // files hashed at one time: 2 per CPU, at most 8
}

func (l Limits) withDefaults() Limits {
	if l.MaxNodes <= 0 {
		l.MaxNodes = 1_000_000
	}
	if l.MaxBytes <= 0 {
		l.MaxBytes = 64 << 30
	}
	if l.MaxDepth <= 0 {
		l.MaxDepth = 256
	}
	if l.Parallel <= 0 {
		l.Parallel = min(8, 2*runtime.GOMAXPROCS(0))
	}
	return l
}

// collector is one call of Outputs.
type collector struct {
	blobs  Blobs
	fn     digest.Function
	action *action.Action
	source Source
	limits Limits
	view   *view
	encode *encoder
	trees  map[digest.Digest][]byte // to be stored: Tree messages
	keep   map[digest.Digest][]byte // to be stored: Directory messages
}

// output is an output that exists.
type output struct {
	action.Output
	node *node
}

// Parents lists the directories that must exist before the action starts, relative to the input root:
// the parent of every output, and in the old form of commands nothing else.
func Parents(a *action.Action) []string {
	var dirs []string
	for _, o := range a.Outputs {
		if d := path.Dir(o.Clean); d != "." {
			dirs = append(dirs, d)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Outputs stores the outputs of a and returns a result with their fields set, in the order of
// a.Outputs. Errors: *OutputError, ErrTooLarge, *tree.MissingError, the store's.
func Outputs(ctx context.Context, blobs Blobs, a *action.Action, s Source, l Limits) (*repb.ActionResult, error) {
	c := &collector{
		blobs: blobs, fn: a.Digest.Function(), action: a, source: s, limits: l.withDefaults(),
		trees: map[digest.Digest][]byte{}, keep: map[digest.Digest][]byte{},
	}
	c.encode = &encoder{
		fn: c.fn, input: s.Input, inputTime: s.InputTime, inputMode: uint32(s.InputMode),
		mtime: slices.Contains(a.OutputNodeProperties, "mtime"), unixMode: slices.Contains(a.OutputNodeProperties, "unix_mode"),
		dirs: map[digest.Digest]*directory{}, unchanged: map[digest.Digest]digest.Digest{}, files: map[digest.Digest]string{},
	}
	result, err := c.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("collect outputs of %s: %w", a.Digest.Short(), err)
	}
	return result, nil
}

func (c *collector) run(ctx context.Context) (*repb.ActionResult, error) {
	result := &repb.ActionResult{}
	if len(c.action.Outputs) == 0 {
		return result, nil
	}
	var err error
	if c.view, err = openView(c.source, c.action.WholeRoot); err != nil {
		return nil, err
	}
	defer c.view.close()
	s := &scanner{view: c.view, limits: c.limits, seen: map[string]*node{}}
	outputs, err := c.find(s)
	if err != nil {
		return nil, err
	}
	if err := c.ingest(ctx, s.blobs); err != nil {
		return nil, err
	}
	for _, o := range outputs {
		if err := c.add(result, o); err != nil {
			return nil, err
		}
	}
	if err := c.restore(ctx, c.encode.files); err != nil {
		return nil, err
	}
	if err := c.store(ctx, c.keep); err != nil {
		return nil, err
	}
	return result, c.store(ctx, c.trees)
}

// find resolves and lists the outputs that exist.
func (c *collector) find(s *scanner) ([]output, error) {
	var outputs []output
	for _, o := range c.action.Outputs {
		e, err := c.view.resolve(o.Clean, c.action.WholeRoot)
		if e == nil && err == nil {
			continue
		}
		var n *node
		if err == nil {
			n, err = s.scan(e, 0)
		}
		var bad *OutputError
		if errors.As(err, &bad) {
			return nil, &OutputError{Path: o.Path, Reason: fmt.Sprintf("cannot be collected: %q %s", bad.Path, bad.Reason)}
		}
		if err != nil {
			return nil, fmt.Errorf("read output %q: %w", o.Path, err)
		}
		outputs = append(outputs, output{Output: o, node: n})
	}
	return outputs, nil
}

// add puts one output into the result.
func (c *collector) add(r *repb.ActionResult, o output) error {
	switch o.node.kind {
	case isFile:
		if c.action.Legacy && o.Directory {
			return &OutputError{Path: o.Path, Reason: "is a file, but was asked for as a directory"}
		}
		f := c.encode.file(o.node)
		r.OutputFiles = append(r.OutputFiles, &repb.OutputFile{
			Path: o.Path, Digest: f.Digest, IsExecutable: f.IsExecutable, NodeProperties: f.NodeProperties,
		})
		return nil
	case isLink:
		return c.addLink(r, o)
	default:
		if c.action.Legacy && !o.Directory {
			return &OutputError{Path: o.Path, Reason: "is a directory, but was asked for as a file"}
		}
		return c.addDirectory(r, o)
	}
}

// addLink puts a symbolic link into the lists it belongs to: output_symlinks for commands in the new
// form, and one of the deprecated lists, by what it points to; a dangling one is a file there.
func (c *collector) addLink(r *repb.ActionResult, o output) error {
	s := c.encode.link(o.Path, o.node)
	link := &repb.OutputSymlink{Path: o.Path, Target: s.Target, NodeProperties: s.NodeProperties}
	toDirectory, known := c.pointsToDirectory(o.node.entry)
	if c.action.Legacy {
		if known && toDirectory != o.Directory {
			return &OutputError{Path: o.Path, Reason: "is a symbolic link to something of another type than was asked for"}
		}
		toDirectory = o.Directory
	} else {
		r.OutputSymlinks = append(r.OutputSymlinks, link)
	}
	if toDirectory {
		//lint:ignore SA1019 clients of API 2.0 read this list
		r.OutputDirectorySymlinks = append(r.OutputDirectorySymlinks, link)
	} else {
		//lint:ignore SA1019 clients of API 2.0 read this list
		r.OutputFileSymlinks = append(r.OutputFileSymlinks, link)
	}
	return nil
}

// pointsToDirectory tells what a link leads to; known is false when that is outside or nothing.
func (c *collector) pointsToDirectory(e *entry) (directory, known bool) {
	at, err := c.view.follow(e, c.action.WholeRoot)
	if err != nil || at == nil {
		return false, false
	}
	return at.kind == isDir, true
}

// addDirectory puts a directory into the result in the form the client asked for; for a whole root in
// both forms, because clients differ in which one they read.
func (c *collector) addDirectory(r *repb.ActionResult, o output) error {
	root, err := c.encode.directory(o.node)
	if err != nil {
		return fmt.Errorf("output %q: %w", o.Path, err)
	}
	out := &repb.OutputDirectory{Path: o.Path}
	format, both := c.action.Format, c.action.WholeRoot || c.action.Format == repb.Command_TREE_AND_DIRECTORY
	if both || format == repb.Command_DIRECTORY_ONLY {
		out.RootDirectoryDigest = root.Proto()
		for _, d := range c.encode.below(root) {
			c.keep[d] = c.encode.dirs[d].data
		}
	}
	if both || format == repb.Command_TREE_ONLY {
		data := c.encode.tree(root)
		d := c.fn.Of(data)
		c.trees[d] = data
		out.TreeDigest, out.IsTopologicallySorted = d.Proto(), true
	}
	r.OutputDirectories = append(r.OutputDirectories, out)
	return nil
}

// store writes those messages the store does not have.
func (c *collector) store(ctx context.Context, messages map[digest.Digest][]byte) error {
	if len(messages) == 0 {
		return nil
	}
	ds := make([]digest.Digest, 0, len(messages))
	for d := range messages {
		ds = append(ds, d)
	}
	missing, err := c.blobs.Missing(ctx, ds)
	if err != nil {
		return fmt.Errorf("look for output directories: %w", err)
	}
	data := make([][]byte, len(missing))
	for i, d := range missing {
		data[i] = messages[d]
	}
	if err := c.blobs.PutAll(ctx, missing, data); err != nil {
		return fmt.Errorf("store output directories: %w", err)
	}
	return nil
}
