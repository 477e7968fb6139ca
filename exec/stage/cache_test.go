package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

func open(t testing.TB, dir string, b Blobs, o Options) *Cache {
	t.Helper()
	c, err := Open(dir, b, o)
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

func stageTree(t testing.TB, c *Cache, tr *tree.Tree) *Root {
	t.Helper()
	r, err := c.Stage(t.Context(), tr, ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// merged reads the lowers as an overlay would show them: the topmost entry wins, directories merge.
func merged(t testing.TB, lowers []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, l := range lowers {
		err := filepath.WalkDir(l, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(l, p)
			info, err := e.Info()
			if err != nil {
				return err
			}
			text := fmt.Sprintf("%v %d", info.Mode(), info.ModTime().Unix())
			switch {
			case e.Type()&fs.ModeSymlink != 0:
				target, err := os.Readlink(p)
				if err != nil {
					return err
				}
				text += " -> " + target
			case e.Type().IsRegular():
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				text += " " + string(data)
			}
			if old, there := out[rel]; !there {
				out[rel] = text
			} else if !e.IsDir() {
				t.Errorf("%s is in two layers: %q and %q", rel, old, text)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// bigTree has a toolchain large enough for layers of its own, and a few sources.
func bigTree(source string) map[string]node {
	nodes := map[string]node{
		"src/main.c": {content: source},
		"src/empty":  {},
		"tool":       {content: strings.Repeat("x", smallFile+1), executable: true},
	}
	for i := range 3 * minCut {
		nodes[fmt.Sprintf("external/llvm/include/d%d/h%d.h", i%3, i)] = node{content: fmt.Sprint("header ", i)}
	}
	return nodes
}

func TestStage(t *testing.T) {
	const mtime = 1321009871
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	nodes := bigTree("int main;")
	nodes["link"] = node{link: "/usr/bin/env"}
	nodes["up"] = node{link: "../../etc"}
	nodes["none"] = node{dir: true}
	r := stageTree(t, c, b.tree(t, nodes))
	defer r.Release()
	if len(r.Lowers) != 4 {
		t.Errorf("%d layers, want the root and three large directories", len(r.Lowers))
	}
	want := map[string]string{
		".": fmt.Sprint("drwxr-xr-x ", mtime), "src": fmt.Sprint("drwxr-xr-x ", mtime), "none": fmt.Sprint("drwxr-xr-x ", mtime),
		"external": fmt.Sprint("drwxr-xr-x ", mtime), "external/llvm": fmt.Sprint("drwxr-xr-x ", mtime),
		"external/llvm/include": fmt.Sprint("drwxr-xr-x ", mtime),
	}
	for p, n := range nodes {
		switch {
		case n.link != "":
			want[p] = fmt.Sprintf("Lrwxrwxrwx %d -> %s", mtime, n.link)
		case n.dir:
		case n.executable:
			want[p] = fmt.Sprintf("-r-xr-xr-x %d %s", mtime, n.content)
		default:
			want[p] = fmt.Sprintf("-r--r--r-- %d %s", mtime, n.content)
			want[filepath.Dir(p)] = fmt.Sprint("drwxr-xr-x ", mtime)
		}
	}
	got := merged(t, r.Lowers)
	if !maps.Equal(got, want) {
		for p := range want {
			if got[p] != want[p] {
				t.Errorf("%s: got %q, want %q", p, got[p], want[p])
			}
		}
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	for _, l := range r.Lowers {
		if filepath.Dir(l) != r.Dir || len(filepath.Base(l)) > 20 {
			t.Errorf("lower %s is not a short name in %s", l, r.Dir)
		}
	}
	if len(b.pinned) != 0 {
		t.Errorf("%d blobs still pinned", len(b.pinned))
	}
}

func TestEmptyRoot(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	r := stageTree(t, c, b.tree(t, nil))
	defer r.Release()
	if got := merged(t, r.Lowers); len(r.Lowers) != 1 || len(got) != 1 {
		t.Errorf("empty input root has layers %v with %v", r.Lowers, got)
	}
}

func TestLayersAreShared(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	first := stageTree(t, c, b.tree(t, bigTree("one")))
	built := c.Stat().Built
	second := stageTree(t, c, b.tree(t, bigTree("two")))
	if n := c.Stat().Built - built; n != 1 {
		t.Errorf("a change in one file built %d layers, want 1", n)
	}
	if got := merged(t, second.Lowers)["src/main.c"]; !strings.HasSuffix(got, " two") {
		t.Errorf("second root has %q", got)
	}
	first.Release()
	first.Release()
	again := stageTree(t, c, b.tree(t, bigTree("one")))
	if n := c.Stat().Built - built; n != 1 {
		t.Errorf("a known root built %d layers", n-1)
	}
	again.Release()
	second.Release()
	if s := c.Stat(); s.InUse != 0 {
		t.Errorf("%d layers in use after every release", s.InUse)
	}
}

// The same directory at two paths is two layers; a property that the sandbox keeps makes no third one.
func TestLayerIdentity(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	nodes := map[string]node{}
	for i := range minCut {
		for _, d := range []string{"a/big/", "b/big/"} {
			nodes[fmt.Sprint(d, i)] = node{content: fmt.Sprint(i)}
		}
	}
	r := stageTree(t, c, b.tree(t, nodes))
	defer r.Release()
	if len(r.Lowers) != 3 {
		t.Errorf("%d layers, want 3", len(r.Lowers))
	}
	nodes["b"] = node{dir: true, props: &repb.NodeProperties{Properties: []*repb.NodeProperty{{Name: "SubtreeReadOnly", Value: "true"}}}}
	built := c.Stat().Built
	frozen := stageTree(t, c, b.tree(t, nodes))
	defer frozen.Release()
	if n := c.Stat().Built - built; n != 1 {
		t.Errorf("protecting a directory built %d layers, want that of the root alone", n)
	}
	got := merged(t, frozen.Lowers)
	for _, p := range []string{"a/big", "b", "b/big"} {
		if !strings.HasPrefix(got[p], "drwxr-xr-x") {
			t.Errorf("%s is %q", p, got[p])
		}
	}
}

func TestNodeProperties(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	when := timestamppb.New(time.Unix(1000, 0))
	mode := &repb.NodeProperties{UnixMode: wrapperspb.UInt32(0o4750), Mtime: when}
	large := strings.Repeat("y", smallFile+1)
	r := stageTree(t, c, b.tree(t, map[string]node{
		"small": {content: "s", props: mode}, "large": {content: large, props: mode}, "plain": {content: large},
		"link": {link: "small", props: &repb.NodeProperties{Mtime: when}},
		"dir":  {dir: true, props: &repb.NodeProperties{UnixMode: wrapperspb.UInt32(0o700), Mtime: when}},
	}))
	defer r.Release()
	got := merged(t, r.Lowers)
	for p, want := range map[string]string{
		"small": "-rwxr-x--- 1000 s", "large": "-rwxr-x--- 1000 " + large, "plain": "-r--r--r-- 1321009871 " + large,
		"link": "Lrwxrwxrwx 1000 -> small", "dir": "drwx------ 1000",
	} {
		if got[p] != want {
			t.Errorf("%s is %.60q, want %.60q", p, got[p], want)
		}
	}
}

func TestEveryMissingBlobIsNamed(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	tr := b.tree(t, bigTree("gone"))
	want := []digest.Digest{digest.SHA256.Of([]byte("gone")), digest.SHA256.Of([]byte("header 7")), digest.SHA256.Of([]byte("header 200"))}
	for _, d := range want {
		b.remove(d)
	}
	_, err := c.Stage(t.Context(), tr, ReadOnly)
	var missing *tree.MissingError
	if !errors.As(err, &missing) || len(missing.Digests) != len(want) {
		t.Fatalf("error %v, want %d missing blobs", err, len(want))
	}
	if s := c.Stat(); s.InUse != 0 || s.Built != 0 || len(b.pinned) != 0 {
		t.Errorf("left behind: %+v, %d pins", s, len(b.pinned))
	}
	for i := range 3 * minCut {
		b.put(fmt.Append(nil, "header ", i))
	}
	b.put([]byte("gone"))
	stageTree(t, c, tr).Release()
}

func TestConcurrentStagesBuildOnce(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{Parallel: 3})
	tr := b.tree(t, bigTree("shared"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r, err := c.Stage(t.Context(), tr, ReadOnly)
			if err != nil {
				t.Error(err)
				return
			}
			r.Release()
		})
	}
	wg.Wait()
	if s := c.Stat(); s.Built != 4 || s.InUse != 0 || s.Layers != 4 {
		t.Errorf("after eight equal stages: %+v", s)
	}
}

// A caller that starts a build and leaves does not end it for another that waits; when the last one
// leaves, the build ends and nothing stays.
func TestCancel(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	tr := b.tree(t, map[string]node{"f": {content: "slow"}})
	entered, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.fail = func(digest.Digest) error {
		once.Do(func() { close(entered); <-goOn })
		return nil
	}
	first, leave := context.WithCancel(t.Context())
	firstDone, secondDone := make(chan error), make(chan error)
	go func() { _, err := c.Stage(first, tr, ReadOnly); firstDone <- err }()
	<-entered
	second, leaveToo := context.WithCancel(t.Context())
	go func() {
		r, err := c.Stage(second, tr, ReadOnly)
		if err == nil {
			r.Release()
		}
		secondDone <- err
	}()
	// The fake holds its lock inside fail, so the second caller cannot be waited for there; it either
	// joins the build or, should it come late, finds the layer.
	leave()
	close(goOn)
	if err := <-secondDone; err != nil {
		t.Errorf("second caller: %v", err)
	}
	if err := <-firstDone; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("first caller: %v", err)
	}
	leaveToo()
	for i := range 200 { // however quick a build would be
		_, err := c.Stage(second, b.tree(t, map[string]node{"g": {content: fmt.Sprint("other", i)}}), ReadOnly)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("a cancelled caller got %v", err)
		}
	}
	if s := c.Stat(); s.InUse != 0 {
		t.Errorf("in use after all left: %+v", s)
	}
}

func TestEviction(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{MaxBytes: 10 * blockSize, SampleEvery: -1})
	hold := stageTree(t, c, b.tree(t, map[string]node{"held": {content: "held"}}))
	for i := range 20 {
		stageTree(t, c, b.tree(t, map[string]node{"f": {content: fmt.Sprint(i)}})).Release()
	}
	if s := c.Stat(); s.Bytes > 10*blockSize || s.InUse != 1 || s.Layers != 5 {
		t.Errorf("budget not kept: %+v", s)
	}
	if got := merged(t, hold.Lowers); !strings.HasSuffix(got["held"], " held") {
		t.Errorf("layer in use is gone: %v", got)
	}
	hold.Release()
	built := c.Stat().Built
	stageTree(t, c, b.tree(t, map[string]node{"f": {content: "19"}})).Release()
	if c.Stat().Built != built {
		t.Error("the most recently used layer was evicted")
	}
	stageTree(t, c, b.tree(t, map[string]node{"f": {content: "0"}})).Release()
	if c.Stat().Built != built+1 {
		t.Error("the least recently used layer was kept")
	}
}

// A blob that vanishes in spite of its pin, and a store that fails, end the build without a trace; the
// next try starts afresh.
func TestBlobVanishesWhileBuilding(t *testing.T) {
	b := newFakeBlobs(t)
	dir := t.TempDir()
	c := open(t, dir, b, Options{})
	large := strings.Repeat("z", smallFile+1)
	tr := b.tree(t, map[string]node{"a": {content: "small"}, "b": {content: large}})
	small := digest.SHA256.Of([]byte("small"))
	b.fail = func(digest.Digest) error {
		delete(b.data, small) // called with the fake's lock held for small files
		return nil
	}
	_, err := c.Stage(t.Context(), tr, ReadOnly)
	if missing, ok := errors.AsType[*tree.MissingError](err); !ok || len(missing.Digests) != 1 || missing.Digests[0] != small {
		t.Errorf("vanished blob: %v", err)
	}
	b.fail = nil
	b.put([]byte("small"))
	broken := errors.New("the store is broken")
	b.fail = func(d digest.Digest) error {
		if d.Size() > smallFile {
			return broken
		}
		return nil
	}
	if _, err := c.Stage(t.Context(), tr, ReadOnly); !errors.Is(err, broken) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("broken store: %v", err)
	}
	b.fail = nil
	r := stageTree(t, c, tr)
	if got := merged(t, r.Lowers); len(got) != 3 {
		t.Errorf("third try: %v", got)
	}
	r.Release()
	c.trash.Empty()
	for _, d := range []string{tmpDir, trashDir} {
		if list, _ := os.ReadDir(filepath.Join(dir, d)); len(list) != 0 {
			t.Errorf("%s holds %v", d, list)
		}
	}
}

func TestDiskFull(t *testing.T) {
	b := newFakeBlobs(t)
	dir := t.TempDir()
	c := open(t, dir, b, Options{})
	stageTree(t, c, b.tree(t, map[string]node{"idle": {content: "idle"}})).Release()
	tr := b.tree(t, map[string]node{"f": {content: "f"}})
	full := 1
	b.fail = func(digest.Digest) error {
		if full--; full >= 0 {
			return &os.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}
		}
		return nil
	}
	stageTree(t, c, tr).Release()
	if s := c.Stat(); s.Layers != 1 {
		t.Errorf("full disk once: %+v, want the idle layer removed and the new one there", s)
	}
	tr = b.tree(t, map[string]node{"g": {content: "g"}})
	full = 2
	if _, err := c.Stage(t.Context(), tr, ReadOnly); !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk for good: %v", err)
	}
	c.trash.Empty()
	for _, d := range []string{tmpDir, trashDir, layersDir} {
		if list, _ := os.ReadDir(filepath.Join(dir, d)); len(list) != 0 {
			t.Errorf("%s holds %v", d, list)
		}
	}
}

func TestReopen(t *testing.T) {
	b := newFakeBlobs(t)
	dir := t.TempDir()
	tr := b.tree(t, bigTree("kept"))
	c, err := Open(dir, b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	stageTree(t, c, tr).Release()
	before := c.Stat()

	// Killed: nothing is closed. A build was under way, and one layer has no index line yet.
	for _, d := range []string{tmpDir + "/half", layersDir + "/aaaaaaaaaaaaaaaa"} {
		if err := os.MkdirAll(filepath.Join(dir, d, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	killed := open(t, dir, b, Options{})
	if s := killed.Stat(); s.Layers != before.Layers || s.Bytes != before.Bytes {
		t.Errorf("after a kill %+v, before %+v", s, before)
	}
	r := stageTree(t, killed, tr)
	if s := killed.Stat(); s.Built != 0 {
		t.Errorf("after a kill %d layers were built again", s.Built)
	}
	if got := merged(t, r.Lowers); len(got) != 3*minCut+11 {
		t.Errorf("%d entries", len(got))
	}
	r.Release()
	if err := killed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{tmpDir + "/half", layersDir + "/aaaaaaaaaaaaaaaa"} {
		if _, err := os.Stat(filepath.Join(dir, d)); err == nil {
			t.Errorf("%s is still there", d)
		}
	}

	index := filepath.Join(dir, indexFile)
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	reboot := strings.Replace(string(text), bootID(), "another-boot", 1)
	for _, o := range []struct {
		name, index string
		layers      int
	}{
		{"clean close and reboot", reboot, before.Layers},
		{"power cut", strings.Replace(reboot, " clean ", " open ", 1), 0},
	} {
		if err := os.WriteFile(index, []byte(o.index), 0o600); err != nil {
			t.Fatal(err)
		}
		c := open(t, dir, b, Options{})
		if s := c.Stat(); s.Layers != o.layers {
			t.Errorf("%s: %d layers, want %d", o.name, s.Layers, o.layers)
		}
		c.Close()
	}
}

func TestIncident(t *testing.T) {
	b := newFakeBlobs(t)
	incidents := make(chan Incident, 1)
	c := open(t, t.TempDir(), b, Options{SampleEvery: 1, OnIncident: func(i Incident) { incidents <- i }})
	tr := b.tree(t, map[string]node{"only/file": {content: "right"}})
	r := stageTree(t, c, tr)
	file := filepath.Join(r.Lowers[0], "only/file")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("wrong"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.Release()
	got := <-incidents
	if got.Path != "only/file" || got.Got != digest.SHA256.Of([]byte("wrong")) || got.Want != digest.SHA256.Of([]byte("right")) {
		t.Errorf("incident %+v", got)
	}
	again := stageTree(t, c, tr)
	if got := merged(t, again.Lowers)["only/file"]; !strings.HasSuffix(got, " right") {
		t.Errorf("staged again: %q", got)
	}
	if s := c.Stat(); s.Incidents != 1 || s.Built != 2 {
		t.Errorf("%+v", s)
	}
	again.Release()
}

func TestClosed(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	tr := b.tree(t, map[string]node{"f": {content: "f"}})
	r := stageTree(t, c, tr)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stage(t.Context(), tr, ReadOnly); !errors.Is(err, ErrClosed) {
		t.Errorf("stage after Close: %v", err)
	}
	if got := merged(t, r.Lowers); len(got) != 2 {
		t.Errorf("held root after Close: %v", got)
	}
	r.Release()
}

// The plan keeps the number of layers small however large the tree is.
func TestPlanIsBounded(t *testing.T) {
	b := newFakeBlobs(t)
	nodes := map[string]node{}
	for d := range 100 {
		for f := range minCut {
			nodes[fmt.Sprintf("d%d/f%d", d, f)] = node{content: "same"}
		}
	}
	tr := b.tree(t, nodes)
	if p := planOf(tr, ReadOnly, nil); len(p.cuts) > maxLayers || p.cuts[0].path != "" {
		t.Errorf("%d layers, first %q", len(p.cuts), p.cuts[0].path)
	}
}

func FuzzIndexLine(f *testing.F) {
	f.Add("abcdefghijklmnop 4096 1")
	f.Add("../../etc/passwd 1 1")
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := parseLayer(s)
		if ok && (len(l.name) != nameSize || strings.ContainsAny(l.name, "/.") || l.bytes < 0) {
			t.Errorf("%q accepted as %+v", s, l)
		}
	})
}
