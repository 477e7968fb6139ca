package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/buildmesh/buildmesh/dht/tree"
)

func open(t *testing.T, from Registry, s *store, o Options) *Catalog {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := Open(from, s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// show lists a root: files with their content and x for executable ones, links with their targets.
func show(t *testing.T, s *store, r *Root) []string {
	t.Helper()
	var lines []string
	r.Tree.Walk(func(at string, d *tree.Directory) {
		for _, f := range d.Files {
			x := ""
			if f.Executable {
				x = " x"
			}
			lines = append(lines, fmt.Sprintf("%s = %s%s", filepath.Join(at, f.Name), s.blobs[f.Digest], x))
		}
		for _, l := range d.Symlinks {
			lines = append(lines, filepath.Join(at, l.Name)+" -> "+l.Target)
		}
		if len(d.Files)+len(d.Symlinks)+len(d.Directories) == 0 {
			lines = append(lines, at+"/")
		}
	})
	slices.Sort(lines)
	return lines
}

func wantShown(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	want = append(want, "build/", "dev/", "proc/", "tmp/")
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const hostsLine = "etc/hosts = " + hosts

// TestCloseMeetsLinger: an image whose time is up in the moment of Close is let go by Close, which waits for nobody to do it.
func TestCloseMeetsLinger(t *testing.T) {
	from, s := newShelf(), newStore()
	reference := from.add(t, v1.Config{}, archive(t, program("./bin/tool", "first")))
	c := open(t, from, s, Options{Dir: t.TempDir(), Linger: time.Hour})
	root, err := c.Use(t.Context(), reference)
	if err != nil {
		t.Fatal(err)
	}
	root.Release()
	for _, e := range c.known {
		e.linger.Stop() // it has fired, as far as Close can tell
	}
	if err := c.Close(); err != nil || len(s.pinned) != 0 {
		t.Errorf("closed: %v, %d blobs are still held", err, len(s.pinned))
	}
}

func TestUse(t *testing.T) {
	from, s, at := newShelf(), newStore(), t.TempDir()
	big := strings.Repeat("big", 100_000)
	reference := from.add(t, v1.Config{Env: []string{"A=1", "PATH=/opt/bin", "A=2", "broken"}, User: "app"},
		archive(t, dir("./"), program("./bin/tool", "first"), file("etc/gone", "x"), file("etc/passwd", "app:x:7:8::/home/app:/bin/sh\n"),
			link("lib", "usr/lib"), file("old/a", "a"), file("old/b", "b"), file("tmp/left", "x"), file("dev/null2", "x"),
			content{Header: tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock}}, content{Header: tar.Header{Name: "pipe", Typeflag: tar.TypeFifo}}),
		archive(t, file("bin/.wh.nothing", ""), hard("bin/same", "bin/tool"), file("etc/.wh.gone", ""), file("lib/so", big),
			file("old/c", "c"), file("old/.wh..wh..opq", ""), link("bin/sh", "/bin/tool")))
	c := open(t, from, s, Options{Dir: at, Linger: time.Millisecond})
	root, err := c.Use(t.Context(), reference)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"bin/tool = first x", "bin/same = first x", "bin/sh -> /bin/tool", "etc/passwd = app:x:7:8::/home/app:/bin/sh\n", hostsLine,
		"lib -> usr/lib", "usr/lib/so = " + big, "old/c = c"}
	wantShown(t, "root", show(t, s, root), want...)
	if env := strings.Join(root.Env, " "); env != "A=1 PATH=/opt/bin broken= HOME=/home/app" {
		t.Errorf("environment: %s", env)
	}
	if root.UID != 7 || root.GID != 8 {
		t.Errorf("runs as %d:%d", root.UID, root.GID)
	}
	before := len(s.blobs)
	if left := s.evict(); left == 0 || left > before {
		t.Errorf("%d of %d blobs are held while the image is used", left, before)
	}
	wantShown(t, "after an eviction", show(t, s, root), want...)
	again, err := c.Use(t.Context(), reference)
	if err != nil || from.asked != 1 || again.Tree.Digest() != root.Tree.Digest() {
		t.Errorf("again: %v, %d manifests were asked for", err, from.asked)
	}
	again.Release()
	root.Release()
	root.Release()
	if err := c.Close(); err != nil || len(s.pinned) != 0 {
		t.Errorf("closed: %v, %d blobs are still held", err, len(s.pinned))
	}
	if left, _ := os.ReadDir(filepath.Join(at, "incoming")); len(left) > 0 {
		t.Errorf("files on their way were left: %v", left)
	}

	// Another process needs no registry, as long as the store has everything.
	from.down = true
	later := open(t, from, s, Options{Dir: at})
	if root, err = later.Use(t.Context(), reference); err != nil {
		t.Fatal(err)
	}
	wantShown(t, "from the record", show(t, s, root), want...)
	root.Release()
	if err := later.Close(); err != nil {
		t.Fatal(err)
	}
	s.evict()
	from.down = false
	last := open(t, from, s, Options{Dir: at})
	if root, err = last.Use(t.Context(), reference); err != nil || last.Stat().Imported != 1 {
		t.Fatalf("after its blobs were evicted: %v, %+v", err, last.Stat())
	}
	wantShown(t, "imported anew", show(t, s, root), want...)
	root.Release()
}

// TestLayers is about what layers may do to each other, one case each.
func TestLayers(t *testing.T) {
	device := content{Header: tar.Header{Name: "a", Typeflag: tar.TypeChar}}
	for name, c := range map[string]struct {
		layers [][]content
		want   []string
	}{
		"a file for a directory":            {[][]content{{file("a/b", "1")}, {file("a", "2")}}, []string{"a = 2"}},
		"a directory for a file":            {[][]content{{file("a", "1")}, {file("a/b", "2")}}, []string{"a/b = 2"}},
		"a directory for a link":            {[][]content{{dir("x"), link("a", "x")}, {dir("a"), file("a/b", "2")}}, []string{"a/b = 2", "x/"}},
		"a directory again":                 {[][]content{{file("a/b", "1")}, {dir("a")}}, []string{"a/b = 1"}},
		"a link is followed inside":         {[][]content{{link("a", "../../../x"), file("a/b", "1")}}, []string{"a -> ../../../x", "x/b = 1"}},
		"an absolute link":                  {[][]content{{link("a", "/x/y"), file("a/b", "1")}}, []string{"a -> /x/y", "x/y/b = 1"}},
		"a mark spares its own layer":       {[][]content{{file("a/b", "1")}, {file("a/b", "2"), file("a/.wh.b", "")}}, []string{"a/b = 2"}},
		"an opaque mark after its content":  {[][]content{{file("a/b", "1")}, {file("a/c/d", "2"), file("a/.wh..wh..opq", "")}}, []string{"a/c/d = 2"}},
		"an opaque mark before its content": {[][]content{{file("a/b/c", "1")}, {file("a/.wh..wh..opq", ""), file("a/b/d", "2")}}, []string{"a/b/d = 2"}},
		"a mark through a link":             {[][]content{{file("x/b", "1"), dir("y"), link("a", "x")}, {file("a/.wh.b", "")}}, []string{"a -> x", "x/", "y/"}},
		"a removed directory":               {[][]content{{file("a/b/c", "1"), file("k", "")}, {file(".wh.a", "")}}, []string{"k = "}},
		"a device hides":                    {[][]content{{file("a", "1"), file("k", "")}, {device}}, []string{"k = "}},
		"hosts are kept":                    {[][]content{{file("etc/hosts", "1.2.3.4 me")}}, []string{"etc/hosts = 1.2.3.4 me"}},
		"a hard link keeps its content":     {[][]content{{file("a", "1"), hard("b", "a")}, {file("a", "2")}}, []string{"a = 2", "b = 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			from, s := newShelf(), newStore()
			var layers [][]byte
			for _, l := range c.layers {
				layers = append(layers, archive(t, l...))
			}
			root, err := open(t, from, s, Options{}).Use(t.Context(), from.add(t, v1.Config{}, layers...))
			if err != nil {
				t.Fatal(err)
			}
			defer root.Release()
			if !slices.ContainsFunc(c.want, func(l string) bool { return strings.HasPrefix(l, "etc/hosts") }) {
				c.want = append(c.want, hostsLine)
			}
			wantShown(t, "root", show(t, s, root), c.want...)
		})
	}
}

// bad is an image that cannot be used, and why.
type bad struct {
	make func(*testing.T, *shelf) string
	want error
}

// badArchives are images whose layers are what they say, which is bad.
func badArchives() map[string]bad {
	deep := strings.Repeat("d/", maxDepth+1) + "f"
	links := []content{file("k", "1")}
	for i := range 50 {
		links = append(links, link(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d", i+1)))
	}
	zeros := bytes.Repeat([]byte{0}, 4<<20)
	of := func(entries ...content) func(*testing.T, *shelf) string {
		return func(t *testing.T, s *shelf) string { return s.add(t, v1.Config{}, archive(t, entries...)) }
	}
	return map[string]bad{
		"name that leads out":      {of(file("../../etc/passwd", "x")), ErrCorrupt},
		"name too long":            {of(file(strings.Repeat("n", 256), "x")), ErrCorrupt},
		"name that is no text":     {of(file("a/\xff\xfe", "x")), ErrCorrupt},
		"too deep":                 {of(file(deep, "x")), ErrTooLarge},
		"links in a circle":        {of(link("a", "b"), link("b", "a"), file("a/f", "x")), ErrCorrupt},
		"too many links":           {of(append(links, file("l0/f", "x"))...), ErrCorrupt},
		"hard link out":            {of(hard("a", "../../etc/passwd")), ErrCorrupt},
		"hard link to nothing":     {of(hard("a", "b")), ErrCorrupt},
		"hard link to a directory": {of(dir("b"), hard("a", "b")), ErrCorrupt},
		"link to nowhere":          {of(link("a", "")), ErrCorrupt},
		"mark of nothing":          {of(file("a/.wh...", "")), ErrCorrupt},
		"a bomb": {func(t *testing.T, s *shelf) string {
			return s.add(t, v1.Config{}, archive(t, file("a", string(zeros))))
		}, ErrTooLarge},
		"a bomb behind the end": {func(t *testing.T, s *shelf) string {
			return s.add(t, v1.Config{}, append(archive(t, file("a", "1")), zeros...))
		}, ErrTooLarge},
		"a bomb of entries": {func(t *testing.T, s *shelf) string {
			var many []content
			for i := range 200 {
				many = append(many, file(fmt.Sprintf("f%d", i), ""))
			}
			return s.add(t, v1.Config{}, archive(t, many...))
		}, ErrTooLarge},
	}
}

// badDescriptions are images that are not what they say, or not to be had.
func badDescriptions() map[string]bad {
	linux := v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH}
	good := func(t *testing.T, s *shelf) string { return s.add(t, v1.Config{}, archive(t, file("a", "1"))) }
	return map[string]bad{
		"a poisoned layer": {func(t *testing.T, s *shelf) string {
			r := good(t, s)
			for hex, data := range s.parts {
				if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
					s.parts[hex] = zipped(archive(t, file("a", "2"))) // of the same size, as it happens
				}
			}
			return r
		}, ErrCorrupt},
		"a poisoned diff": {func(t *testing.T, s *shelf) string {
			return s.addPacked(t, linux, [][]byte{archive(t, file("a", "1"))}, [][]byte{zipped(archive(t, file("a", "2")))})
		}, ErrCorrupt},
		"a poisoned manifest": {func(t *testing.T, s *shelf) string {
			r := good(t, s)
			_, pin, _ := strings.Cut(r, "@sha256:")
			s.parts[pin] = append(s.parts[pin], ' ')
			return r
		}, ErrCorrupt},
		"half a layer": {func(t *testing.T, s *shelf) string {
			whole := archive(t, file("a", strings.Repeat("x", 3000)))
			return s.add(t, v1.Config{}, whole[:1500])
		}, ErrCorrupt},
		"no archive":    {func(t *testing.T, s *shelf) string { return s.add(t, v1.Config{}, bytes.Repeat([]byte("no"), 600)) }, ErrCorrupt},
		"no manifest":   {func(_ *testing.T, s *shelf) string { return "oci:/x@" + s.put([]byte("[")).String() }, ErrCorrupt},
		"nothing in it": {func(_ *testing.T, s *shelf) string { return "oci:/x@" + s.put([]byte("{}")).String() }, ErrUnsuitable},
		"missing":       {func(*testing.T, *shelf) string { return "oci:/x@sha256:" + strings.Repeat("0", 64) }, ErrNotFound},
		"another machine": {func(t *testing.T, s *shelf) string {
			return s.addPacked(t, v1.ConfigFile{OS: "linux", Architecture: "vax"}, nil, nil)
		}, ErrUnsuitable},
		"another system": {func(t *testing.T, s *shelf) string { return s.addPacked(t, v1.ConfigFile{OS: "windows"}, nil, nil) }, ErrUnsuitable},
		"unknown user":   {func(t *testing.T, s *shelf) string { return s.add(t, v1.Config{User: "nobody-here"}, archive(t)) }, ErrUnsuitable},
		"connection broken": {func(t *testing.T, s *shelf) string {
			s.breakOff = true
			return good(t, s)
		}, ErrUnreachable},
		"registry down": {func(t *testing.T, s *shelf) string {
			s.down = true
			return good(t, s)
		}, ErrUnreachable},
		"index without this machine": {func(t *testing.T, s *shelf) string {
			return "oci:/x@" + s.put(marshal(t, v1.IndexManifest{Manifests: []v1.Descriptor{
				other("linux", "vax"), other("plan9", "mips")}})).String()
		}, ErrUnsuitable},
	}
}

// TestBadImages is everything an image can be that must not come in. Nothing of it may stay held or remembered.
func TestBadImages(t *testing.T) {
	all := badArchives()
	maps.Copy(all, badDescriptions())
	for name, c := range all {
		t.Run(name, func(t *testing.T) {
			from, s := newShelf(), newStore()
			o := Options{Dir: t.TempDir(), MaxBytes: 1 << 20, MaxNodes: 250}
			if strings.Contains(name, "entries") {
				o.MaxNodes = 100
			}
			catalog := open(t, from, s, o)
			reference := c.make(t, from)
			_, err := catalog.Use(t.Context(), reference)
			var named *Error
			if !errors.Is(err, c.want) || !errors.As(err, &named) || named.Image != reference {
				t.Errorf("%v, want %v", err, c.want)
			}
			if err := catalog.Close(); err != nil {
				t.Error(err)
			}
			if len(s.pinned) != 0 {
				t.Errorf("%d blobs are still held", len(s.pinned))
			}
			if left, _ := filepath.Glob(filepath.Join(o.Dir, "*.json")); len(left) > 0 {
				t.Errorf("it is remembered: %v", left)
			}
		})
	}
}

// other is an image for another machine in an index.
func other(system, architecture string) v1.Descriptor {
	return v1.Descriptor{
		Digest:   v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("5", 64)},
		Platform: &v1.Platform{OS: system, Architecture: architecture},
	}
}

// TestForms reads layers that are not compressed, or by zstd, and an image by way of an index.
func TestForms(t *testing.T) {
	layer := archive(t, file("a", "1"))
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	linux := v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH}
	for name, packed := range map[string][]byte{"plain": layer, "zstd": z.EncodeAll(layer, nil)} {
		from, s := newShelf(), newStore()
		reference := from.addPacked(t, linux, [][]byte{layer}, [][]byte{packed})
		_, pin, _ := strings.Cut(reference, "@")
		hash, err := v1.NewHash(pin)
		if err != nil {
			t.Fatal(err)
		}
		index := from.put(marshal(t, v1.IndexManifest{Manifests: []v1.Descriptor{
			other("linux", "vax"),
			{Digest: hash, Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}}}))
		for _, r := range []string{reference, "oci:/images@" + index.String()} {
			root, err := open(t, from, s, Options{}).Use(t.Context(), r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wantShown(t, name, show(t, s, root), "a = 1", hostsLine)
			root.Release()
		}
	}
}

// joined is how many use images, or wait for them.
func (c *Catalog) joined() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.known {
		n += e.users
	}
	return n
}

// TestOneImport lets many ask for an image at once, and some of them leave.
func TestOneImport(t *testing.T) {
	from, s := newShelf(), newStore()
	reference := from.add(t, v1.Config{}, archive(t, file("a", "1")))
	from.hold = make(chan struct{})
	c := open(t, from, s, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error)
	for i := range 20 {
		own := t.Context()
		if i%2 == 0 {
			own = ctx
		}
		go func() {
			root, err := c.Use(own, reference)
			if err == nil {
				root.Release()
			}
			results <- err
		}()
	}
	<-from.waiting
	for deadline := time.Now().Add(30 * time.Second); c.joined() < 20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 20 have joined", c.joined())
		}
	}
	cancel()
	for range 10 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("who left has %v", err)
		}
	}
	close(from.hold)
	for range 10 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if stat := c.Stat(); from.asked != 1 || stat.Imported != 1 {
		t.Errorf("%d manifests were asked for, %+v", from.asked, stat)
	}

	// When all have left, the import ends, and the next one begins anew.
	s.evict()
	other := from.add(t, v1.Config{}, archive(t, file("b", "1")))
	from.hold = make(chan struct{})
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := c.Use(ctx, other)
		results <- err
	}()
	<-from.waiting
	cancel()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(from.hold)
	if root, err := c.Use(t.Context(), other); err != nil {
		t.Error(err)
	} else {
		root.Release()
	}
}

// TestTimes is about the clock: an import that takes too long, and images that are let go when nobody used them for a while.
func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, s := newShelf(), newStore()
		reference := from.add(t, v1.Config{}, archive(t, file("a", "1")))
		c := open(t, from, s, Options{Timeout: time.Minute, Linger: time.Hour})
		from.hold = make(chan struct{})
		begun := time.Now()
		if _, err := c.Use(t.Context(), reference); !errors.Is(err, ErrUnreachable) || time.Since(begun) != time.Minute {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		from.hold = nil
		root, err := c.Use(t.Context(), reference)
		if err != nil {
			t.Fatal(err)
		}
		root.Release()
		time.Sleep(50 * time.Minute)
		if root, err = c.Use(t.Context(), reference); err != nil {
			t.Fatal(err)
		}
		root.Release()
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if s.evict() == 0 {
			t.Error("an image used within the hour is gone")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if left := s.evict(); left != 0 {
			t.Errorf("%d blobs of an image that nobody uses are held", left)
		}
	})
}

func TestFloating(t *testing.T) {
	from := newShelf()
	reference := from.add(t, v1.Config{}, archive(t, file("a", "1")))
	_, pin, _ := strings.Cut(reference, "@")
	from.tags["stable"], _ = v1.NewHash(pin)
	c := open(t, from, newStore(), Options{})
	if _, err := c.Use(t.Context(), "oci:/images:stable"); !errors.Is(err, ErrFloating) || !strings.Contains(err.Error(), reference) {
		t.Errorf("%v, want the form %s", err, reference)
	}
	if _, err := c.Use(t.Context(), "oci:/images:other"); !errors.Is(err, ErrFloating) || !strings.Contains(err.Error(), "@sha256:") {
		t.Errorf("a tag that is not there: %v", err)
	}
}

// TestFullStore imports into a store that keeps nothing.
func TestFullStore(t *testing.T) {
	from, s := newShelf(), newStore()
	s.full = true
	_, err := open(t, from, s, Options{}).Use(t.Context(), from.add(t, v1.Config{}, archive(t, file("a", "1"))))
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want %v", err, ErrTooLarge)
	}
}

func TestDamagedRecord(t *testing.T) {
	from, s, at := newShelf(), newStore(), t.TempDir()
	reference := from.add(t, v1.Config{}, archive(t, file("a", "1")))
	for _, damage := range []string{"", "{", `{"format":1,"root":"zz","size":3}`, `{"format":99}`, `{"format":1,"root":"` + strings.Repeat("0", 64) + `","size":3}`} {
		c := open(t, from, s, Options{Dir: at})
		root, err := c.Use(t.Context(), reference)
		if err != nil {
			t.Fatalf("after %q: %v", damage, err)
		}
		root.Release()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		records, _ := filepath.Glob(filepath.Join(at, "*.json"))
		if len(records) != 1 {
			t.Fatalf("records: %v", records)
		}
		if err := os.WriteFile(records[0], []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzLayer(f *testing.F) {
	f.Add(archive(f, file("a/b", "1"), link("l", "../.."), hard("h", "a/b"), file("l/.wh.a", ""), dir("a")))
	f.Add(zipped(archive(f, file("a/.wh..wh..opq", ""), file("x", "2"))))
	f.Fuzz(func(t *testing.T, layer []byte) {
		from, s := newShelf(), newStore()
		config := v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH}
		root, err := open(t, from, s, Options{MaxBytes: 1 << 20, MaxNodes: 1000}).Use(t.Context(), from.addPacked(t, config, [][]byte{layer}, [][]byte{layer}))
		if err == nil {
			root.Release()
			return
		}
		for _, known := range []error{ErrCorrupt, ErrTooLarge} {
			if errors.Is(err, known) {
				return
			}
		}
		t.Errorf("%v is of no kind that a layer can cause", err)
	})
}

func FuzzParse(f *testing.F) {
	pin := "@sha256:" + strings.Repeat("a", 64)
	for _, seed := range []string{"docker://ubuntu:24.04" + pin, "oci:/a/b:tag" + pin, "docker://h:1/x/y", "oci:/", "docker://@", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrReference) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if !r.Pinned() {
			return
		}
		again, err := Parse(r.At(r.Pin))
		if err != nil || again.Pin != r.Pin || again.Layout != r.Layout || again.Repository.Name() != r.Repository.Name() {
			t.Errorf("%q is written as %q, which is %+v, %v", text, r.At(r.Pin), again, err)
		}
	})
}
