package run

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
)

// marked stores a tree of directories, given as path to what its node property says, "" for nothing.
func (b *fakeBlobs) marked(t *testing.T, marks map[string]string) *tree.Tree {
	t.Helper()
	builder := tree.NewBuilder(digest.SHA256)
	var build func(at string) digest.Digest
	build = func(at string) digest.Digest {
		dir := &tree.Directory{}
		if m := marks[at]; m != "" {
			dir.Properties = &repb.NodeProperties{Properties: []*repb.NodeProperty{{Name: "SubtreeReadOnly", Value: m}}}
		}
		for _, name := range []string{"a", "b", "tmp"} {
			if below := at + "/" + name; hasPrefix(marks, below) {
				dir.Directories = append(dir.Directories, tree.Subdirectory{Name: name, Digest: build(below)})
			}
		}
		d, err := builder.Add(dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	root := build("")
	for _, data := range builder.Blobs {
		b.put(data)
	}
	loaded, err := tree.Load(t.Context(), b, root, tree.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func hasPrefix(marks map[string]string, prefix string) bool {
	for p := range marks {
		if p == prefix || len(p) > len(prefix) && p[:len(prefix)+1] == prefix+"/" {
			return true
		}
	}
	return false
}

func TestProtected(t *testing.T) {
	for _, c := range []struct {
		name               string
		marks              map[string]string
		wholeRoot          bool
		readOnly, writable []string
	}{
		{"nothing is said", map[string]string{"/a/b": ""}, true, nil, nil},
		{"a subtree", map[string]string{"/a/b": "true", "/b": ""}, false, []string{"a/b"}, nil},
		{"the root but for two, as BuildStream asks", map[string]string{"": "true", "/a/b": "false", "/b": "false", "/tmp": "false"}, true,
			[]string{"."}, []string{"a/b", "b"}},
		{"said again below", map[string]string{"": "true", "/a": "true", "/a/b": "false", "/a/b/a": "false", "/a/b/a/b": "true"}, true,
			[]string{".", "a/b/a/b"}, []string{"a/b"}},
		{"false without true", map[string]string{"": "false", "/a": "false"}, true, nil, nil},
		{"what the sandbox mounts", map[string]string{"/tmp": "true", "/tmp/a": "false", "/a/tmp": "true"}, true, []string{"a/tmp"}, nil},
		{"the same directory beside host tools", map[string]string{"/tmp": "true"}, false, []string{"tmp"}, nil},
	} {
		readOnly, writable, err := protected(newFakeBlobs().marked(t, c.marks), c.wholeRoot)
		if err != nil || !slices.Equal(readOnly, c.readOnly) || !slices.Equal(writable, c.writable) {
			t.Errorf("%s: %q, %q, %v; want %q, %q", c.name, readOnly, writable, err, c.readOnly, c.writable)
		}
	}
}

func TestProtectionIsBounded(t *testing.T) {
	marks := map[string]string{}
	for level, depth := []string{""}, 0; len(marks) <= maxProtected; depth++ {
		var next []string
		for _, at := range level {
			marks[at] = fmt.Sprint(depth%2 == 0)
			next = append(next, at+"/a", at+"/b")
		}
		level = next
	}
	// Equal directories are one in a tree, but a mount each in a sandbox.
	_, _, err := protected(newFakeBlobs().marked(t, marks), true)
	if invalid, ok := errors.AsType[*action.InvalidError](err); !ok || invalid.Field != "input_root_digest" {
		t.Errorf("%v", err)
	}
}

// What a client protects reaches the sandbox.
func TestProtectionReachesTheSandbox(t *testing.T) {
	s := newStand(t, Options{})
	a := s.action(nil)
	a.InputRoot = s.blobs.marked(t, map[string]string{"/a": "true", "/a/b": "false"}).Digest()
	if _, err := s.runner.Execute(t.Context(), a, s.observer); err != nil {
		t.Fatal(err)
	}
	if spec := s.box.specs[0]; !slices.Equal(spec.ReadOnly, []string{"a"}) || !slices.Equal(spec.Writable, []string{"a/b"}) {
		t.Errorf("read-only %q, writable %q", spec.ReadOnly, spec.Writable)
	}
}
