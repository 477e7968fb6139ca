package collect

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
)

// BenchmarkWholeRoot collects a root of 8,000 files of which the action wrote one.
func BenchmarkWholeRoot(b *testing.B) {
	blobs, files := newFakeBlobs(), map[string]string{}
	for i := range 8000 {
		files[fmt.Sprintf("usr/lib/d%d/f%d", i/20, i)] = fmt.Sprint(i)
	}
	input, err := tree.Load(b.Context(), blobs, blobs.directory(b, "", files), tree.DefaultLimits())
	if err != nil {
		b.Fatal(err)
	}
	a := &action.Action{
		Digest: digest.SHA256.Of(nil), WholeRoot: true, Format: repb.Command_DIRECTORY_ONLY,
		Outputs: []action.Output{{Path: ".", Clean: "."}},
	}
	s := Source{Upper: b.TempDir(), Input: input, Scratch: b.TempDir()}
	b.ReportAllocs()
	for b.Loop() {
		if err := os.MkdirAll(filepath.Join(s.Upper, "usr/lib/d7"), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.Upper, "usr/lib/d7/new"), []byte("new"), 0o644); err != nil {
			b.Fatal(err)
		}
		if _, err := Outputs(b.Context(), blobs, a, s, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
