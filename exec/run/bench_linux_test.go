package run

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/exec/stage"
)

// BenchmarkExecute runs /bin/true in the real sandbox, without inputs and with known ones.
func BenchmarkExecute(b *testing.B) {
	dir := b.TempDir()
	for d := dir; d != "/" && d != filepath.Clean(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	box, report, err := sandbox.Probe(b.Context(), sandbox.Options{Dir: dir})
	if err != nil || box.Tier() != sandbox.TierA {
		b.Skip(err, report)
	}
	defer box.Close()
	blobs, staging := newFakeBlobs(), stage.Options{}
	if uid, gid, need := box.Owner(); need {
		staging.Owner = &stage.Owner{UID: uid, GID: gid}
	}
	cache, err := stage.Open(filepath.Join(dir, "stage"), blobs, staging)
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	r, err := Open(blobs, cache, box, Options{Dir: filepath.Join(dir, "run")})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for _, inputs := range []int{0, 1000, 10_000} {
		files := map[string]string{}
		for i := range inputs {
			files[fmt.Sprintf("lib/d%d/f%d", i/100, i)] = fmt.Sprint(i)
		}
		a := &action.Action{
			Digest: digest.SHA256.Of(nil), InputRoot: blobs.directory(b, files), Arguments: []string{"/bin/true"},
			Outputs: []action.Output{{Path: "out/o", Clean: "out/o"}},
		}
		o := &observer{}
		if _, err := r.Execute(b.Context(), a, o); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(inputs), func(b *testing.B) {
			for b.Loop() {
				if _, err := r.Execute(b.Context(), a, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
