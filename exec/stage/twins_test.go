package stage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buildmesh/buildmesh/dht/tree"
)

// sameInode tells whether two files are names of one.
func sameInode(t *testing.T, a, b string) bool {
	t.Helper()
	first, err := os.Lstat(a)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.Lstat(b)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(first, second)
}

// What two roots have at the same path is one file on the disk; the same content at another path, or as another kind of
// file, is not: an action would see hard links that nobody made.
func TestTwins(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	first := stageTree(t, c, b.tree(t, map[string]node{"a/h": {content: "header"}, "x": {content: "1"}}))
	defer first.Release()
	second := stageTree(t, c, b.tree(t, map[string]node{
		"a/h": {content: "header"}, "a/twice": {content: "header"}, "b/h": {content: "header"}, "x": {content: "2"},
	}))
	defer second.Release()
	third := stageTree(t, c, b.tree(t, map[string]node{"a/h": {content: "header", executable: true}}))
	defer third.Release()
	header := filepath.Join(first.Lowers[0], "a/h")
	if !sameInode(t, header, filepath.Join(second.Lowers[0], "a/h")) {
		t.Error("the same file at the same path was made twice")
	}
	for _, other := range []string{
		filepath.Join(second.Lowers[0], "a/twice"), filepath.Join(second.Lowers[0], "b/h"), filepath.Join(third.Lowers[0], "a/h"),
	} {
		if sameInode(t, header, other) {
			t.Errorf("%s is a hard link of another path or another kind of file", other)
		}
	}
	if got := merged(t, second.Lowers)["a/h"]; !strings.HasSuffix(got, " header") {
		t.Errorf("the linked file: %q", got)
	}
}

// The layer a twin would be linked from is gone: the file is made anew.
func TestTwinGone(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	stageTree(t, c, b.tree(t, map[string]node{"f": {content: "f"}, "x": {content: "1"}})).Release()
	c.evictAll()
	again := stageTree(t, c, b.tree(t, map[string]node{"f": {content: "f"}, "x": {content: "2"}}))
	defer again.Release()
	if got := merged(t, again.Lowers)["f"]; !strings.HasSuffix(got, " f") {
		t.Errorf("%q", got)
	}
}

// A file that rotted is found once; every layer that shares it goes, and no new one links it.
func TestTwinsOfIncident(t *testing.T) {
	b := newFakeBlobs(t)
	incidents := make(chan Incident, 1)
	c := open(t, t.TempDir(), b, Options{SampleEvery: 2, OnIncident: func(i Incident) { incidents <- i }})
	one := b.tree(t, map[string]node{"d/f": {content: "right"}, "empty": {dir: true}})
	root := stageTree(t, c, one)
	other := b.tree(t, map[string]node{"d/f": {content: "right"}})
	stageTree(t, c, other).Release() // the first release: not looked at
	file := filepath.Join(root.Lowers[0], "d/f")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("wrong"), 0o644); err != nil {
		t.Fatal(err)
	}
	root.Release()
	<-incidents
	for _, tr := range []*tree.Tree{one, other} {
		again := stageTree(t, c, tr)
		if got := merged(t, again.Lowers)["d/f"]; !strings.HasSuffix(got, " right") {
			t.Errorf("the rotten file is used: %q", got)
		}
		again.Release()
	}
}
