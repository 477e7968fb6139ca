package bridge

import (
	"errors"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// What was brought in is found by the name it was given, in every form, and outlives a restart.
func TestAdopt(t *testing.T) {
	l := newLab(t)
	file := l.put(digest.SHA256, "hello")
	root := l.message(&repb.Directory{Directories: []*repb.DirectoryNode{
		{Name: "d", Digest: l.message(&repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: file.Proto()}}}).Proto()}}})
	for _, name := range []string{"", "//pkg:thing", "project/element/key"} {
		if err := l.Adopt(t.Context(), name, root); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	l.open()
	for _, name := range []string{root.String(), root.Hex() + "-" + "80", "//pkg:thing", "@//pkg:thing", "mesh:bazel:////pkg:thing", "project/element/key"} {
		if name == root.Hex()+"-80" && root.Size() != 80 {
			continue
		}
		if got, err := l.Find(t.Context(), name); err != nil || got != root {
			t.Errorf("%s: %v, %v, want %v", name, got, err, root)
		}
	}
	below, err := l.Directory(t.Context(), digest.SHA256, "mesh:bazel:////pkg:thing?path=d")
	if err != nil || l.paths(below)["f"] == "" {
		t.Errorf("a part of it: %v, %v", below, err)
	}
	if d, err := l.Blob(t.Context(), digest.SHA256, "https://mesh.invalid/bst/project/element/key.tar"); err != nil || d.Size() == 0 {
		t.Errorf("as Bazel asks for it: %v, %v", d, err)
	}
}

func TestAdoptRefuses(t *testing.T) {
	l := newLab(t)
	file := digest.SHA256.Of([]byte("gone"))
	incomplete := l.message(&repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: file.Proto()}}})
	for _, name := range []string{"", "//pkg:thing", "project/element/key"} {
		if err := l.Adopt(t.Context(), name, incomplete); !errors.Is(err, ErrNotFound) {
			t.Errorf("an incomplete tree as %q: %v", name, err)
		}
	}
	whole := l.message(&repb.Directory{})
	var field *reapi.FieldError
	for _, name := range []string{"//pkg:thing?path=d", "two/parts", "//:", "a b/c/d"} {
		if err := l.Adopt(t.Context(), name, whole); !errors.As(err, &field) {
			t.Errorf("as %q: %v", name, err)
		}
	}
	for _, name := range []string{"", "zz/1", "//"} {
		if got, err := l.Find(t.Context(), name); !errors.As(err, &field) {
			t.Errorf("%q is %v, %v", name, got, err)
		}
	}
	for _, name := range []string{file.String(), "//never:built", "never/been/pushed"} {
		if got, err := l.Find(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q is %v, %v", name, got, err)
		}
	}
}
