package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// Registry gives what images are made of. Nothing it gives is trusted.
type Registry interface {
	// Manifest gives a manifest or index of the reference's repository or layout.
	Manifest(ctx context.Context, r Reference, hash v1.Hash) ([]byte, error)
	// Blob gives a configuration or layer.
	Blob(ctx context.Context, r Reference, hash v1.Hash) (io.ReadCloser, error)
	// Resolve tells what a floating reference means at this moment.
	Resolve(ctx context.Context, r Reference) (v1.Hash, error)
}

// Blobs is what images need of the blob store.
type Blobs interface {
	// GetBatch gives contents in order, nil for a blob that is absent.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
	// PutAll stores data[i] under ds[i].
	PutAll(ctx context.Context, ds []digest.Digest, data [][]byte) error
	// PutFile takes in a file that nobody writes any more; the file may be moved or linked.
	PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error)
	// Pin keeps the present ones of ds until release is called and gives the others.
	Pin(ds []digest.Digest) (release func(), missing []digest.Digest)
}

// Options of a Catalog; zero values are the defaults given.
type Options struct {
	Dir      string        // for records and files on their way, on the store's file system; required
	MaxBytes int64         // of one image, unpacked: 20 GiB
	MaxNodes int           // entries of one image's layers: 1,000,000
	Timeout  time.Duration // of one import: 30 min
	Resolve  time.Duration // for asking what a tag means: 15 s
	Linger   time.Duration // how long an image stays pinned after its last use: 10 min
	Trees    tree.Limits   // zero: tree.DefaultLimits
}

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 20 << 30
	}
	if o.MaxNodes <= 0 {
		o.MaxNodes = 1_000_000
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Minute
	}
	if o.Resolve <= 0 {
		o.Resolve = 15 * time.Second
	}
	if o.Linger <= 0 {
		o.Linger = 10 * time.Minute
	}
	return o
}

// Catalog is the images of one node. Make it with Open, end it with Close.
type Catalog struct {
	registry Registry
	blobs    Blobs
	options  Options
	imports  sync.WaitGroup

	mu     sync.Mutex // guards everything below
	known  map[v1.Hash]*entry
	closed bool
	stat   Stat
}

// Stat counts what a Catalog did since Open.
type Stat struct{ Imported, Reused, Failed int64 }

// entry is an image that is being prepared, or pinned. Guarded by Catalog.mu; root and err are set
// before ready is closed.
//
//	action A: join -> prepares, users 1    waits ... its ctx ends: users 0, the preparation is cancelled
//	action B:         join -> users 2          waits ....... ready: uses it, users 1 ... Release, users 0: lingers
type entry struct {
	users  int
	cancel context.CancelFunc
	ready  chan struct{}
	root   *Root // what users copy
	err    error
	unpin  func()
	linger *time.Timer // set while there are no users
}

// Root is an image in use. Its fields are shared and must not be changed.
type Root struct {
	Tree     *tree.Tree
	Env      []string // NAME=value, PATH and HOME always among them
	UID, GID uint32

	once    *sync.Once
	release func()
}

// Release lets the image go. Calls after the first do nothing.
func (r *Root) Release() { r.once.Do(r.release) }

// Open prepares o.Dir. The caller makes sure that no second process uses it.
func Open(registry Registry, blobs Blobs, o Options) (*Catalog, error) {
	c := &Catalog{registry: registry, blobs: blobs, options: o.withDefaults(), known: map[v1.Hash]*entry{}}
	if err := os.RemoveAll(c.incoming()); err != nil {
		return nil, fmt.Errorf("open image catalog: %w", err)
	}
	if err := os.MkdirAll(c.incoming(), 0o700); err != nil {
		return nil, fmt.Errorf("open image catalog: %w", err)
	}
	return c, nil
}

// incoming is where files are unpacked to.
func (c *Catalog) incoming() string { return filepath.Join(c.options.Dir, "incoming") }

// Close ends imports, waits for them and lets all images go.
func (c *Catalog) Close() error {
	c.mu.Lock()
	c.closed = true
	for hash, e := range c.known {
		e.cancel()
		if e.linger != nil {
			e.linger.Stop() // when it has fired already, it finds that it is not the entry's any more
			e.linger = nil
			c.drop(hash, e)
		}
	}
	c.mu.Unlock()
	c.imports.Wait()
	return nil
}

// Stat gives the counts.
func (c *Catalog) Stat() Stat {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stat
}

// Use makes the image that a container-image property names ready, and holds it until Root.Release.
// Errors are *Error.
func (c *Catalog) Use(ctx context.Context, property string) (*Root, error) {
	root, err := c.use(ctx, property)
	if err != nil {
		return nil, &Error{Image: clip(property), Err: err}
	}
	return root, nil
}

func (c *Catalog) use(ctx context.Context, property string) (*Root, error) {
	r, err := Parse(property)
	if err != nil {
		return nil, err
	}
	if !r.Pinned() {
		return nil, c.floating(ctx, r)
	}
	e, err := c.join(r)
	if err != nil {
		return nil, err
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		c.leave(r.Pin, e)
		return nil, context.Cause(ctx)
	}
	if e.err != nil {
		c.leave(r.Pin, e)
		return nil, e.err
	}
	used := *e.root
	used.once, used.release = &sync.Once{}, func() { c.leave(r.Pin, e) }
	return &used, nil
}

// floating is the error for a reference without a pin. It says which pin the reference means now, when
// that can be found out.
func (c *Catalog) floating(ctx context.Context, r Reference) error {
	ctx, cancel := context.WithTimeout(ctx, c.options.Resolve)
	defer cancel()
	hash, err := c.registry.Resolve(ctx, r)
	if err != nil {
		return fmt.Errorf("%w: add @sha256:... to it (what it means now is not known: %w)", ErrFloating, err)
	}
	return fmt.Errorf("%w: use %s", ErrFloating, r.At(hash))
}

// join adds a user to an image's entry, and begins to prepare it when there is none.
func (c *Catalog) join(r Reference) (*entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	e := c.known[r.Pin]
	if e == nil {
		e = c.prepare(r)
	}
	e.users++
	if e.linger != nil {
		e.linger.Stop() // as in Close
		e.linger = nil
	}
	return e, nil
}

// prepare starts an entry. Called with mu held.
func (c *Catalog) prepare(r Reference) *entry {
	ctx, cancel := context.WithTimeoutCause(context.Background(), c.options.Timeout,
		fmt.Errorf("%w: it was not complete within %v", ErrUnreachable, c.options.Timeout))
	e := &entry{cancel: cancel, ready: make(chan struct{})}
	c.known[r.Pin] = e
	c.imports.Go(func() {
		defer cancel()
		root, unpin, reused, err := c.load(ctx, r)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		c.finish(r.Pin, e, func() {
			e.root, e.unpin, e.err = root, unpin, err
			switch {
			case err != nil:
				c.stat.Failed++
			case reused:
				c.stat.Reused++
			default:
				c.stat.Imported++
			}
		})
	})
	return e
}

// finish publishes what became of an entry. One that failed, or that nobody waits for any more, is forgotten.
func (c *Catalog) finish(hash v1.Hash, e *entry, set func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set()
	close(e.ready)
	switch {
	case e.err != nil:
		c.forget(hash, e)
	case e.users == 0 || c.closed && e.users == 0:
		c.drop(hash, e)
	}
}

// leave takes a user from an entry.
func (c *Catalog) leave(hash v1.Hash, e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.users--; e.users > 0 {
		return
	}
	select {
	case <-e.ready:
	default: // nobody waits for what is being prepared
		e.cancel()
		c.forget(hash, e)
		return
	}
	if e.err != nil {
		return
	}
	if c.closed {
		c.drop(hash, e)
		return
	}
	var own *time.Timer
	own = time.AfterFunc(c.options.Linger, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.linger == own {
			c.drop(hash, e)
		}
	})
	e.linger = own
}

// forget makes the next user begin anew. Called with mu held.
func (c *Catalog) forget(hash v1.Hash, e *entry) {
	if c.known[hash] == e {
		delete(c.known, hash)
	}
}

// drop forgets a ready entry and lets its blobs go, once. Called with mu held.
func (c *Catalog) drop(hash v1.Hash, e *entry) {
	c.forget(hash, e)
	if e.unpin != nil {
		e.unpin()
		e.unpin = nil
	}
}

// load brings an image up: from the record of an earlier import, else by importing it.
func (c *Catalog) load(ctx context.Context, r Reference) (root *Root, unpin func(), reused bool, err error) {
	if known := c.read(r.Pin); known != nil {
		root, unpin, err := c.restore(ctx, known)
		if err == nil {
			return root, unpin, true, nil
		}
		var missing *tree.MissingError
		if !errors.As(err, &missing) && !errors.Is(err, tree.ErrInvalid) {
			return nil, nil, false, err
		}
	}
	m := &importer{
		registry: c.registry, reference: r, blobs: c.blobs, options: c.options, bytes: c.options.MaxBytes,
		files: &files{blobs: c.blobs, dir: c.incoming()},
	}
	defer m.files.release()
	made, err := m.run(ctx)
	if err != nil {
		return nil, nil, false, err
	}
	if root, unpin, err = c.restore(ctx, made); err != nil {
		return nil, nil, false, err
	}
	if err := c.write(r.Pin, made); err != nil {
		unpin()
		return nil, nil, false, err
	}
	return root, unpin, false, nil
}

// restore loads and pins a root that is in the store. A *tree.MissingError says that it is not, or not whole.
func (c *Catalog) restore(ctx context.Context, known *record) (*Root, func(), error) {
	sum, err := digest.Parse(digest.SHA256, known.Root, known.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", tree.ErrInvalid, err)
	}
	t, err := tree.Load(ctx, c.blobs, sum, c.options.Trees)
	if err != nil {
		return nil, nil, err
	}
	unpin, missing := c.blobs.Pin(append(t.Directories(), t.Files()...))
	if len(missing) > 0 {
		unpin()
		return nil, nil, &tree.MissingError{Digests: missing}
	}
	return &Root{Tree: t, Env: known.Env, UID: known.UID, GID: known.GID}, unpin, nil
}

// Platform is the part of a root that an image's digest does not tell: the architecture chosen from an
// index, and how images are laid out.
func Platform() string { return fmt.Sprintf("image layout %d, linux/%s", recordFormat, runtime.GOARCH) }
