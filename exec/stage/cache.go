package stage

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/trash"
)

var (
	// ErrClosed is returned by a Cache after Close.
	ErrClosed = errors.New("stage: cache is closed")
	// ErrFull is wrapped when the disk is full even after every unused layer was removed.
	ErrFull = errors.New("stage: disk is full")
)

// Blobs is what the cache needs of the blob store.
type Blobs interface {
	// Pin keeps the present ones of ds until release is called and returns the missing ones.
	Pin(ds []digest.Digest) (release func(), missing []digest.Digest)
	// GetBatch returns contents in order, nil for a blob that is missing.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
	// Materialize creates path with the content of d and mode 0444 or 0555. The file may share its
	// inode with the store.
	Materialize(ctx context.Context, d digest.Digest, path string, executable bool) error
}

// Owner is the user and group layers belong to.
type Owner struct{ UID, GID int }

// Incident tells that a file of a layer no longer has the bytes it was made with. The layer is in
// quarantine and will not be used again; if the file shares its inode with the blob store, the blob is
// corrupt as well.
type Incident struct {
	Layer string        // name of the layer
	Path  string        // of the file, relative to the input root
	Want  digest.Digest // what it was made from
	Got   digest.Digest // what it holds; zero when it cannot be read
	Err   error         // why it cannot be read
}

// Options of a Cache; zero values are the defaults given.
type Options struct {
	MaxBytes    int64          // disk budget of all layers, counting hardlinked files in full: 20 GiB
	Parallel    int            // chunks of files created at one time: 2 per CPU
	Owner       *Owner         // nil leaves the owner to the process; setting it needs privileges
	SampleEvery int            // one file is checked at every so many releases: 16; negative: never
	SampleBytes int64          // files larger than this are not sampled: 16 MiB
	OnIncident  func(Incident) // called from a goroutine of the cache, nil to ignore
}

// Stat is a snapshot of a Cache.
type Stat struct {
	Layers, InUse int   // layers on disk, and how many of them are held by Roots
	Bytes         int64 // their size by the measure of Options.MaxBytes
	Built         int64 // layers built since Open
	Incidents     int64
}

// Cache keeps materialised layers below one directory, which it owns.
type Cache struct {
	dir      string // absolute
	blobs    Blobs
	opt      Options
	salt     []byte
	chmod    bool // the umask strips bits that a layer needs
	slots    chan struct{}
	trash    *trash.Bin
	audit    chan sample
	stop     chan struct{}
	sequence atomic.Uint64 // makes names in tmp and trash unique
	wg       sync.WaitGroup

	// inodes is held for writing while the mode of a file that may be shared is changed, for reading while such a file is
	// linked and looked at: who links it later sees its new mode, who linked it before is counted.
	inodes sync.RWMutex
	twins  twins

	mu     sync.Mutex // guards everything below; never held during I/O but renames, index lines and incidents
	index  *os.File
	layers map[string]*layer
	idle   *list.List // of *layer with refs 0, least recently used first
	builds map[string]*build
	plans  map[planned]*plan
	stat   Stat

	releases int
	closed   bool
}

// layer is one complete directory on disk. Guarded by Cache.mu.
type layer struct {
	name  string
	bytes int64
	nodes int
	refs  int
	elem  *list.Element // in Cache.idle while refs is 0
	bad   bool          // in quarantine, and no longer in Cache.layers
}

// Root is an input root ready for use.
type Root struct {
	// Dir is the parent of all Lowers, for mounting with short relative paths.
	Dir string
	// Lowers are the absolute paths of the layers, the topmost first. Never empty, read-only.
	Lowers []string

	cache  *Cache
	tree   *tree.Tree
	plan   *plan
	layers []*layer
	once   sync.Once
}

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 20 << 30
	}
	if o.Parallel <= 0 {
		o.Parallel = 2 * runtime.GOMAXPROCS(0)
	}
	if o.SampleEvery == 0 {
		o.SampleEvery = 16
	}
	if o.SampleBytes <= 0 {
		o.SampleBytes = 16 << 20
	}
	if o.OnIncident == nil {
		o.OnIncident = func(Incident) {}
	}
	return o
}

// Open prepares dir, which is created when absent, and takes over the layers an earlier Cache left
// there. The caller makes sure that no second process uses dir.
func Open(dir string, blobs Blobs, opt Options) (*Cache, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open tree cache: %w", err)
	}
	c := &Cache{
		dir: dir, blobs: blobs, opt: opt.withDefaults(),
		audit: make(chan sample, 1), stop: make(chan struct{}),
		layers: map[string]*layer{}, idle: list.New(), builds: map[string]*build{}, plans: map[planned]*plan{},
	}
	c.slots = make(chan struct{}, c.opt.Parallel)
	if err := c.load(); err != nil {
		if c.trash != nil {
			c.trash.Close()
		}
		return nil, fmt.Errorf("open tree cache %s: %w", dir, err)
	}
	c.wg.Add(1)
	go c.auditor()
	c.mu.Lock()
	c.evict()
	c.mu.Unlock()
	return c, nil
}

// Close ends builds in progress, waits for the cache's goroutines and syncs the layers so that they
// outlive even a power cut. Roots still held stay on disk; releasing them later is allowed.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	for _, b := range c.builds {
		b.cancel()
	}
	c.mu.Unlock()
	close(c.stop)
	c.wg.Wait()
	c.trash.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.writeIndex(true); err != nil {
		return fmt.Errorf("close tree cache: %w", err)
	}
	return c.index.Close()
}

// Stat returns current counts.
func (c *Cache) Stat() Stat {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stat
	s.Layers, s.InUse = len(c.layers), len(c.layers)-c.idle.Len()
	return s
}

// Stage makes every layer of t present, with the given modes, and holds them until Root.Release.
//
// Errors: *tree.MissingError with every missing file of the layers that are not there yet; ErrFull;
// ErrClosed; ctx's. A build that another caller waits for goes on when ctx ends.
func (c *Cache) Stage(ctx context.Context, t *tree.Tree, modes Modes) (*Root, error) {
	r := &Root{cache: c, tree: t, plan: c.plan(t, modes), Dir: filepath.Join(c.dir, layersDir)}
	if err := c.fill(ctx, r); err != nil {
		r.drop()
		return nil, fmt.Errorf("stage input root %s: %w", t.Digest().Short(), err)
	}
	r.Lowers = make([]string, len(r.layers))
	for i, l := range r.layers {
		r.Lowers[i] = filepath.Join(r.Dir, l.name)
	}
	return r, nil
}

// fill sets r.layers to the layers of r.plan, each with a reference. After an error some are nil.
func (c *Cache) fill(ctx context.Context, r *Root) error {
	r.layers = make([]*layer, len(r.plan.cuts))
	absent, err := c.take(r)
	if err != nil || len(absent) == 0 {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // else a build that is quick would be as good an answer
	}
	var files []digest.Digest
	seen := map[digest.Digest]bool{}
	for _, i := range absent {
		files = appendFiles(files, seen, r.tree, &r.plan.cuts[i])
	}
	// Every caller pins for itself what it waits for, so that a build goes on safely when the caller
	// that started it leaves.
	release, missing := c.blobs.Pin(files)
	defer release()
	if len(missing) > 0 {
		return &tree.MissingError{Digests: missing}
	}
	builds := make([]*build, len(absent))
	for k, i := range absent {
		if builds[k], err = c.join(r, i); err != nil {
			break
		}
	}
	for k, i := range absent {
		if builds[k] == nil {
			continue
		}
		l, werr := c.wait(ctx, builds[k])
		r.layers[i], err = l, errors.Join(err, werr)
	}
	return err
}

// take fills in the layers that are there and returns the indices of the others.
func (c *Cache) take(r *Root) (absent []int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	for i := range r.plan.cuts {
		if l := c.layers[r.plan.cuts[i].name]; l != nil {
			c.hold(l, 1)
			r.layers[i] = l
		} else {
			absent = append(absent, i)
		}
	}
	return absent, nil
}

// hold adds n references. Called with mu held.
func (c *Cache) hold(l *layer, n int) {
	l.refs += n
	if l.refs > 0 && l.elem != nil {
		c.idle.Remove(l.elem)
		l.elem = nil
	}
}

// unhold gives back one reference. Called with mu held.
func (c *Cache) unhold(l *layer) {
	if l.refs--; l.refs > 0 {
		return
	}
	if l.bad {
		return
	}
	l.elem = c.idle.PushBack(l)
}

// maxPlans bounds the memo of plans; a plan is a few kilobytes.
const maxPlans = 4096

// planned is what a plan is made for.
type planned struct {
	root  digest.Digest
	modes Modes
}

func (c *Cache) plan(t *tree.Tree, modes Modes) *plan {
	d := planned{t.Digest(), modes}
	c.mu.Lock()
	p := c.plans[d]
	c.mu.Unlock()
	if p != nil {
		return p
	}
	p = planOf(t, modes, c.salt)
	c.mu.Lock()
	defer c.mu.Unlock()
	for old := range c.plans { // any one will do
		if len(c.plans) < maxPlans {
			break
		}
		delete(c.plans, old)
	}
	c.plans[d] = p
	return p
}

// Release gives the layers back. Idempotent; nothing may use Lowers afterwards.
func (r *Root) Release() { r.once.Do(r.release) }

func (r *Root) release() {
	c := r.cache
	c.mu.Lock()
	c.releases++
	due := !c.closed && c.opt.SampleEvery > 0 && c.releases%c.opt.SampleEvery == 0
	c.mu.Unlock()
	if due {
		if s, ok := r.sample(c.opt.SampleBytes); ok && c.offer(s) {
			return // the auditor drops the layers when it is done
		}
	}
	r.drop()
}

// drop gives back the references in r.layers.
func (r *Root) drop() {
	c := r.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range r.layers {
		if l != nil {
			c.unhold(l)
		}
	}
	r.layers = nil
	c.evict()
}
