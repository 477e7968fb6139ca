package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// build is one layer being made. waiters and abandoned are guarded by Cache.mu, layer and err are set
// before done is closed.
//
//	caller A: join -> starts it, waiters 1     wait ... ctx ends: waiters 1
//	caller B:         join -> waiters 2             wait ........... done: takes its reference
//
// The goroutine ends by itself, or when the last waiter left.
type build struct {
	cancel    context.CancelFunc
	done      chan struct{}
	waiters   int
	abandoned bool
	layer     *layer
	err       error
}

// join adds a waiter to the build of cut i of r, starting it when there is none. When the layer has
// appeared meanwhile, it is taken into r instead and the build is nil.
func (c *Cache) join(r *Root, i int) (*build, error) {
	cut := &r.plan.cuts[i]
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return nil, ErrClosed
		}
		if l := c.layers[cut.name]; l != nil {
			c.hold(l, 1)
			r.layers[i] = l
			c.mu.Unlock()
			return nil, nil
		}
		b := c.builds[cut.name]
		if b == nil {
			b = c.start(r.tree, cut)
		}
		if !b.abandoned {
			b.waiters++
			c.mu.Unlock()
			return b, nil
		}
		c.mu.Unlock()
		<-b.done // it is ending; begin anew after it
	}
}

// start begins a build. Called with mu held.
func (c *Cache) start(t *tree.Tree, cut *cut) *build {
	ctx, cancel := context.WithCancel(context.Background())
	b := &build{cancel: cancel, done: make(chan struct{})}
	c.builds[cut.name] = b
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer cancel()
		l, err := c.make(ctx, t, cut)
		c.finish(cut.name, b, l, err)
	}()
	return b
}

// finish publishes the outcome of b and hands each waiter a reference.
func (c *Cache) finish(name string, b *build, l *layer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.builds, name)
	if err == nil {
		c.layers[name] = l
		c.stat.Bytes += l.bytes
		c.stat.Built++
		if l.refs = b.waiters; l.refs == 0 {
			l.elem = c.idle.PushBack(l)
		}
		c.logLayer(l)
		c.evict()
	}
	b.layer, b.err = l, err
	close(b.done)
}

// wait returns the layer of b with a reference for the caller, or gives up when ctx ends.
func (c *Cache) wait(ctx context.Context, b *build) (*layer, error) {
	select {
	case <-b.done:
		return b.layer, b.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	select {
	case <-b.done: // finished while we were leaving: the reference is ours
		if b.err == nil {
			c.unhold(b.layer)
		}
		c.mu.Unlock()
	default:
		if b.waiters--; b.waiters == 0 {
			b.abandoned = true
			b.cancel()
		}
		abandoned := b.abandoned
		c.mu.Unlock()
		if abandoned {
			<-b.done // the caller's pins must outlive the build
		}
	}
	return nil, ctx.Err()
}

// make builds one layer in a temporary directory and renames it into place. A full disk is tried once
// more after removing every unused layer.
func (c *Cache) make(ctx context.Context, t *tree.Tree, cut *cut) (*layer, error) {
	l, err := c.makeOnce(ctx, t, cut)
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return l, err
	}
	c.evictAll()
	if l, err = c.makeOnce(ctx, t, cut); errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	return l, err
}

func (c *Cache) makeOnce(ctx context.Context, t *tree.Tree, cut *cut) (_ *layer, err error) {
	tmp := c.unique(tmpDir)
	defer func() {
		if err != nil {
			c.discard(tmp)
			err = fmt.Errorf("lay out %q: %w", "/"+cut.path, err)
		}
	}()
	b := &builder{cache: c, dir: tmp, list: entriesOf(t, cut), modes: cut.modes}
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, filepath.Join(c.dir, layersDir, cut.name)); err != nil {
		return nil, err
	}
	c.twins.add(cut.name, b.twins)
	return &layer{name: cut.name, bytes: b.list.bytes, nodes: b.list.nodes}, nil
}

// builder lays one layer out below dir, which nothing else knows.
type builder struct {
	cache *Cache
	dir   string
	root  *os.Root
	list  *entries
	modes Modes

	mu    sync.Mutex // guards twins
	twins []twin     // that it created, for later layers
}

func (b *builder) run(ctx context.Context) (err error) {
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		return err
	}
	if b.root, err = os.OpenRoot(b.dir); err != nil {
		return err
	}
	defer b.root.Close()
	for _, d := range b.list.dirs {
		if d.path == "." {
			continue
		}
		if err := b.root.Mkdir(d.path, 0o755); err != nil {
			return err
		}
	}
	if err := b.files(ctx); err != nil {
		return err
	}
	for _, s := range b.list.links {
		if err := b.link(s); err != nil {
			return err
		}
	}
	for i := len(b.list.dirs) - 1; i >= 0; i-- {
		if err := b.finishDir(b.list.dirs[i]); err != nil {
			return err
		}
	}
	return nil
}

// chunkFiles bounds the files of one chunk: enough to spread a directory over the processors, and to
// read small blobs in batches.
const chunkFiles = 64

// files creates all files, chunks in parallel as the cache's slots allow. The first error ends it.
func (b *builder) files(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, d := range b.list.dirs {
		for rest := d.files; len(rest) > 0; {
			chunk := rest[:min(chunkFiles, len(rest))]
			rest = rest[len(chunk):]
			select {
			case b.cache.slots <- struct{}{}:
			case <-ctx.Done():
				wg.Wait()
				return context.Cause(ctx)
			}
			wg.Go(func() {
				defer func() { <-b.cache.slots }()
				if err := b.chunk(ctx, d, chunk); err != nil {
					cancel(err)
				}
			})
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}

// newFile is a small file about to be created. Creating those is most of the work of staging, so each
// system does it in its own way, with as few calls as it can.
type newFile struct {
	name  string
	data  []byte
	mode  fs.FileMode
	chmod bool // the mode given when creating will not do
	mtime time.Time
	owner *Owner
}

// smallFile is the size up to which contents are read in batches and written here; larger ones are
// left to the store, which may link them. A chunk of them is at most 2 MiB.
const smallFile = 32 << 10

// chunk creates some files of one directory.
func (b *builder) chunk(ctx context.Context, d *dirEntry, files []tree.File) error {
	at, err := b.root.OpenRoot(d.path)
	if err != nil {
		return err
	}
	defer at.Close()
	handle, err := at.Open(".")
	if err != nil {
		return err
	}
	defer handle.Close()
	var create []tree.File
	for i := range files {
		f := &files[i]
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case f.Digest.Size() > smallFile:
			err = b.materialize(ctx, at, d, f)
		case !b.linkTwin(handle, f.Name, b.twinOf(d, f)):
			create = append(create, *f)
		}
		if err != nil {
			return fmt.Errorf("file %q: %w", path.Join(d.path, f.Name), err)
		}
	}
	return b.create(ctx, handle, d, create)
}

// create makes small files with new inodes in the directory at.
func (b *builder) create(ctx context.Context, at *os.File, d *dirEntry, files []tree.File) error {
	if len(files) == 0 {
		return nil
	}
	digests := make([]digest.Digest, len(files))
	for i := range files {
		digests[i] = files[i].Digest
	}
	data, err := b.cache.blobs.GetBatch(ctx, digests)
	if err != nil {
		return err
	}
	made := make([]twin, 0, len(files))
	for i := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.write(at, &files[i], data[i]); err != nil {
			return fmt.Errorf("file %q: %w", path.Join(d.path, files[i].Name), err)
		}
		if t := b.twinOf(d, &files[i]); t.path != "" {
			made = append(made, t)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.twins = append(b.twins, made...)
	return nil
}

// twinOf is what other layers may have f as; none when it has a time of its own.
func (b *builder) twinOf(d *dirEntry, f *tree.File) twin {
	mode, mtime := b.attributes(f)
	if !mtime.Equal(tree.ModTime) {
		return twin{}
	}
	return twin{digest: f.Digest, mode: mode, path: path.Join(d.path, f.Name)}
}

// write creates f with the given content in a new inode of the directory at.
func (b *builder) write(at *os.File, f *tree.File, data []byte) error {
	if data == nil && !f.Digest.IsEmpty() {
		return &tree.MissingError{Digests: []digest.Digest{f.Digest}}
	}
	mode, mtime := b.attributes(f)
	n := newFile{name: f.Name, data: data, mode: mode, mtime: mtime, owner: b.cache.opt.Owner}
	n.chmod = b.cache.chmod || mode&^0o755 != 0
	return n.create(at)
}

// materialize lets the store create f. A file that wants other attributes than everything that may
// share its inode is copied.
func (b *builder) materialize(ctx context.Context, at *os.Root, d *dirEntry, f *tree.File) error {
	mode, mtime := b.attributes(f)
	if mode != b.modes.Mode(f.Executable) || !mtime.Equal(tree.ModTime) {
		return b.copy(ctx, at, f)
	}
	target := filepath.Join(b.dir, filepath.FromSlash(d.path), f.Name)
	b.cache.inodes.RLock()
	err := b.cache.blobs.Materialize(ctx, f.Digest, target, f.Executable)
	var info fs.FileInfo
	if err == nil {
		info, err = at.Lstat(f.Name)
	}
	b.cache.inodes.RUnlock()
	if err != nil {
		return err
	}
	if info.Mode().Perm() != mode {
		if changed, err := b.changeMode(at, f.Name, mode); err != nil {
			return err
		} else if !changed {
			if err := at.Remove(f.Name); err != nil {
				return err
			}
			return b.copy(ctx, at, f)
		}
	}
	return b.settle(at, f.Name, info)
}

// changeMode gives the file the mode, unless another layer shares its inode: then it is false.
func (b *builder) changeMode(at *os.Root, name string, mode fs.FileMode) (bool, error) {
	b.cache.inodes.Lock()
	defer b.cache.inodes.Unlock()
	info, err := at.Lstat(name)
	if err != nil {
		return false, err
	}
	if sharedByLayers(info) {
		return false, nil
	}
	return true, at.Chmod(name, mode)
}

// copy creates f as a copy that shares its inode with nothing.
func (b *builder) copy(ctx context.Context, at *os.Root, f *tree.File) error {
	private := b.cache.unique(tmpDir)
	defer os.Remove(private)
	if err := b.cache.blobs.Materialize(ctx, f.Digest, private, f.Executable); err != nil {
		return err
	}
	return b.copyFrom(at, private, f)
}

// settle gives a file that may share its inode the owner and time they all have, if it lacks them.
func (b *builder) settle(at *os.Root, name string, info fs.FileInfo) error {
	if o := b.cache.opt.Owner; o != nil && !ownedBy(info, *o) {
		if err := at.Lchown(name, o.UID, o.GID); err != nil {
			return err
		}
	}
	if info.ModTime().Equal(tree.ModTime) {
		return nil
	}
	return at.Chtimes(name, tree.ModTime, tree.ModTime)
}

// copyFrom creates f as a copy of the file at source.
func (b *builder) copyFrom(at *os.Root, source string, f *tree.File) error {
	mode, mtime := b.attributes(f)
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := at.OpenFile(f.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = out.ReadFrom(in); err == nil {
		err = out.Chmod(mode)
	}
	if o := b.cache.opt.Owner; o != nil && err == nil {
		err = out.Chown(o.UID, o.GID)
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return at.Chtimes(f.Name, mtime, mtime)
}

func (b *builder) link(s linkEntry) error {
	if err := b.root.Symlink(s.target, s.path); err != nil {
		return err
	}
	if o := b.cache.opt.Owner; o != nil {
		if err := b.root.Lchown(s.path, o.UID, o.GID); err != nil {
			return err
		}
	}
	return setLinkTime(filepath.Join(b.dir, filepath.FromSlash(s.path)), s.mtime)
}

// finishDir sets what creating the directory's content would have disturbed.
func (b *builder) finishDir(d *dirEntry) error {
	if o := b.cache.opt.Owner; o != nil {
		if err := b.root.Chown(d.path, o.UID, o.GID); err != nil {
			return err
		}
	}
	if b.cache.chmod || d.mode != 0o755 {
		if err := b.root.Chmod(d.path, d.mode); err != nil {
			return err
		}
	}
	return b.root.Chtimes(d.path, d.mtime, d.mtime)
}

// attributes are the mode and time of a file. A unix_mode asked for loses its special bits only: nothing
// but an overlay ever shows the file to an action.
func (b *builder) attributes(f *tree.File) (fs.FileMode, time.Time) {
	mode, mtime := b.modes.Mode(f.Executable), tree.ModTime
	if p := f.Properties; p != nil {
		if p.UnixMode != nil {
			mode = fs.FileMode(p.UnixMode.Value) & 0o777
		}
		if p.Mtime != nil {
			mtime = p.Mtime.AsTime()
		}
	}
	return mode, mtime
}
