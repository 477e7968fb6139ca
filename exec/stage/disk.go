package stage

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/buildmesh/buildmesh/exec/trash"
)

// What is below a cache's directory.
const (
	layersDir     = "layers"     // complete layers, named by content
	tmpDir        = "tmp"        // layers being built
	trashDir      = "trash"      // renamed here, then removed in the background
	quarantineDir = "quarantine" // layers of incidents, kept for inspection until the next Open
	indexFile     = "index"      // header, then one line a layer: name, bytes, nodes
)

// indexVersion changes whenever layers of an earlier version must not be used.
const indexVersion = "buildmesh-stage-1"

// load reads the state an earlier Cache left. Layers without an index line, and all of them when the
// machine went down without a clean Close, are thrown away.
func (c *Cache) load() error {
	for _, d := range []string{"", layersDir, tmpDir, quarantineDir} {
		if err := os.MkdirAll(filepath.Join(c.dir, d), 0o755); err != nil {
			return err
		}
	}
	var err error
	if c.trash, err = trash.Open(filepath.Join(c.dir, trashDir)); err != nil {
		return err
	}
	for _, d := range []string{tmpDir, quarantineDir} {
		if err := c.discardAll(d); err != nil {
			return err
		}
	}
	known := c.readIndex()
	names, err := os.ReadDir(filepath.Join(c.dir, layersDir))
	if err != nil {
		return err
	}
	present := map[string]bool{}
	for _, e := range names {
		present[e.Name()] = true
	}
	for _, l := range known { // oldest first
		if present[l.name] {
			c.layers[l.name] = l
			l.elem = c.idle.PushBack(l)
			c.stat.Bytes += l.bytes
		}
	}
	for name := range present {
		if c.layers[name] == nil {
			c.discard(filepath.Join(c.dir, layersDir, name))
		}
	}
	if c.salt == nil {
		c.salt = make([]byte, 16)
		rand.Read(c.salt) // never fails: crypto/rand
	}
	if err := c.probeUmask(); err != nil {
		return err
	}
	return c.writeIndex(false)
}

// probeUmask finds out whether files are created with the mode asked for.
func (c *Cache) probeUmask() error {
	name := c.unique(tmpDir)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	c.chmod = info.Mode().Perm() != 0o755
	return nil
}

// readIndex returns the layers the index knows, the least recently used first, and sets the salt. A
// damaged index is an empty one: layers are only copies.
func (c *Cache) readIndex() []*layer {
	f, err := os.Open(filepath.Join(c.dir, indexFile))
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	if !lines.Scan() {
		return nil
	}
	header := strings.Fields(lines.Text())
	if len(header) != 4 || header[0] != indexVersion {
		return nil
	}
	if header[1] != "clean" && (header[2] == "-" || header[2] != bootID()) {
		return nil
	}
	salt, err := hex.DecodeString(header[3])
	if err != nil || len(salt) != 16 {
		return nil
	}
	c.salt = salt
	at := map[string]int{}
	var known []*layer
	for lines.Scan() {
		l, ok := parseLayer(lines.Text())
		if !ok {
			continue
		}
		if i, again := at[l.name]; again {
			known[i] = l
			continue
		}
		at[l.name] = len(known)
		known = append(known, l)
	}
	return known
}

func parseLayer(line string) (*layer, bool) {
	name, rest, _ := strings.Cut(line, " ")
	bytes, nodes, found := strings.Cut(rest, " ")
	if !found || len(name) != nameSize || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return nil, false
	}
	size, err := strconv.ParseInt(bytes, 10, 64)
	if err != nil || size < 0 {
		return nil, false
	}
	n, err := strconv.ParseInt(nodes, 10, 32)
	if err != nil || n < 0 {
		return nil, false
	}
	return &layer{name: name, bytes: size, nodes: int(n)}, true
}

func (l *layer) line() string { return fmt.Sprintf("%s %d %d\n", l.name, l.bytes, l.nodes) }

// writeIndex replaces the index and leaves it open for appending. A clean one says that every layer
// is on the disk itself. Called before the cache is shared, or with mu held.
func (c *Cache) writeIndex(clean bool) error {
	state, boot := "open", bootID()
	if clean {
		state = "clean"
		if err := syncLayers(filepath.Join(c.dir, layersDir)); err != nil {
			return err
		}
	}
	if boot == "" {
		boot = "-"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s %s %s\n", indexVersion, state, boot, hex.EncodeToString(c.salt))
	for e := c.idle.Front(); e != nil; e = e.Next() {
		text.WriteString(e.Value.(*layer).line())
	}
	for _, l := range c.layers {
		if l.refs > 0 {
			text.WriteString(l.line())
		}
	}
	name := filepath.Join(c.dir, indexFile)
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text.String())
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		f.Close()
		return err
	}
	if c.index != nil {
		c.index.Close()
	}
	c.index = f
	return syncDir(c.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}

// logLayer appends l to the index. A line that cannot be written costs the layer at the next Open,
// nothing else. Called with mu held.
func (c *Cache) logLayer(l *layer) { _, _ = c.index.WriteString(l.line()) }

// unique is a fresh path in one of the cache's directories.
func (c *Cache) unique(in string) string {
	return filepath.Join(c.dir, in, strconv.FormatUint(c.sequence.Add(1), 36)+"-"+strconv.Itoa(os.Getpid()))
}

// evict removes unused layers, the least recently used first, until the budget is met. Called with mu held.
func (c *Cache) evict() {
	for c.stat.Bytes > c.opt.MaxBytes && c.idle.Len() > 0 {
		c.remove(c.idle.Front().Value.(*layer))
	}
}

// evictAll removes every unused layer and waits until the space is free.
func (c *Cache) evictAll() {
	c.mu.Lock()
	for c.idle.Len() > 0 {
		c.remove(c.idle.Front().Value.(*layer))
	}
	c.mu.Unlock()
	c.trash.Empty()
}

// remove forgets an unused layer and moves it to the trash. Called with mu held.
func (c *Cache) remove(l *layer) {
	c.idle.Remove(l.elem)
	l.elem = nil
	delete(c.layers, l.name)
	c.stat.Bytes -= l.bytes
	c.discard(filepath.Join(c.dir, layersDir, l.name))
}

// condemn takes l out of use after an incident: its directory moves to quarantine at once, even from
// under Roots that hold it. Overlays mounted already keep it; a mount still to come fails rather than
// show wrong bytes. Called with mu held.
func (c *Cache) condemn(l *layer) {
	if l.bad {
		return
	}
	l.bad = true
	if l.elem != nil {
		c.idle.Remove(l.elem)
		l.elem = nil
	}
	c.stat.Incidents++
	delete(c.layers, l.name)
	c.stat.Bytes -= l.bytes
	from := filepath.Join(c.dir, layersDir, l.name)
	if err := os.Rename(from, filepath.Join(c.dir, quarantineDir, filepath.Base(c.unique("")))); err != nil {
		c.discard(from)
	}
	// The index must not bring it back after a crash; if this write fails, its directory is gone anyway.
	_ = c.writeIndex(false)
}

// discard moves path to the trash. What cannot be moved is left for the next Open, which finds no
// index line for it, or finds it in tmp.
func (c *Cache) discard(path string) { _ = c.trash.Throw(path) }

func (c *Cache) discardAll(in string) error {
	list, err := os.ReadDir(filepath.Join(c.dir, in))
	for _, e := range list {
		c.discard(filepath.Join(c.dir, in, e.Name()))
	}
	return err
}
