package bridge

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
)

func openTargets(t testing.TB, dir string, o TargetOptions) *Targets {
	t.Helper()
	targets, err := OpenTargets(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { targets.Close() })
	return targets
}

func resultOf(path string) *repb.ActionResult {
	return &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: path}}}
}

func actionOf(name string) digest.Digest { return digest.SHA256.Of([]byte(name)) }

func TestNoteLeavesOut(t *testing.T) {
	targets := openTargets(t, t.TempDir(), TargetOptions{})
	failed := resultOf("a")
	failed.ExitCode = 1
	targets.Note("//a:a", "M", actionOf("failed"), failed)
	targets.Note("//a:a", "M", actionOf("nothing"), &repb.ActionResult{})
	targets.Note("//a:a", "M", actionOf("up"), resultOf("../a"))
	targets.Note("//a:a", "M", actionOf("root"), resultOf("."))
	targets.Note("//a:a", "M", actionOf("absolute"), resultOf("/a"))
	targets.Note("", "M", actionOf("of nothing"), resultOf("a"))
	targets.Note("//a\x00", "M", actionOf("of no label"), resultOf("a"))
	if all, err := targets.find("//a:a", digest.SHA256); err != nil || len(all) != 0 {
		t.Errorf("noted %v, %v", all, err)
	}
}

// A target with very many actions keeps the last ones, and all targets together keep their bound.
func TestTargetsAreBounded(t *testing.T) {
	const bound = 4 << 20
	dir := t.TempDir()
	targets := openTargets(t, dir, TargetOptions{MaxBytes: bound, OnError: func(err error) { t.Error(err) }})
	for i := range maxMade + 10 {
		targets.Note("//big:big", "M", actionOf(fmt.Sprint(i)), resultOf(fmt.Sprint("out/", i)))
		if i%1000 == 0 { // do not run ahead of the writer
			targets.find("//big:big", digest.SHA256)
		}
	}
	all, err := targets.find("//big:big", digest.SHA256)
	if err != nil || len(all) < 1000 || len(all) > maxMade || all[len(all)-1].output != fmt.Sprint("out/", maxMade+9) {
		t.Fatalf("%d actions: %v", len(all), err)
	}
	long := strings.Repeat("x", maxOutput-10)
	for i := range 100 {
		targets.Note("//long:long", "M", actionOf("a"), resultOf(fmt.Sprint(long, i)))
		targets.find("//long:long", digest.SHA256)
	}
	if all, err := targets.find("//long:long", digest.SHA256); err != nil || len(all) < 20 || len(all) > bound/maxPart/maxOutput+1 || all[len(all)-1].output != fmt.Sprint(long, 99) {
		t.Errorf("a target with long paths has %d: %v", len(all), err)
	}
	for i := range 1200 {
		targets.Note(fmt.Sprintf("//t:%d", i), "M", actionOf("a"), resultOf(long))
		targets.find("//t:0", digest.SHA256)
	}
	if all, err := targets.find("//t:1199", digest.SHA256); err != nil || len(all) != 1 {
		t.Errorf("the last target: %v, %v", all, err)
	}
	if all, err := targets.find("//big:big", digest.SHA256); err != nil || len(all) != 0 {
		t.Errorf("the first target is there still: %d, %v", len(all), err)
	}
	if err := targets.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
	}
	if total > 2*bound {
		t.Errorf("the targets take %d bytes on disk, the bound is %d", total, bound)
	}
}

func TestConcurrentNotes(t *testing.T) {
	targets := openTargets(t, t.TempDir(), TargetOptions{OnError: func(err error) { t.Error(err) }})
	var noting sync.WaitGroup
	for g := range 8 {
		noting.Go(func() {
			for i := range 200 {
				targets.Note("//a:a", "M", actionOf(fmt.Sprint(g, i)), resultOf(fmt.Sprint("out/", g, "/", i)))
				if i%50 == 0 {
					if _, err := targets.find("//a:a", digest.SHA256); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	noting.Wait()
	if all, err := targets.find("//a:a", digest.SHA256); err != nil || len(all) != 1600 {
		t.Errorf("%d actions are noted, want 1600: %v", len(all), err)
	}
	targets.Close()
	targets.Note("//a:a", "M", actionOf("late"), resultOf("late"))
	if _, err := targets.find("//a:a", digest.SHA256); err == nil {
		t.Error("closed targets were found")
	}
}

// BenchmarkNoteKnown is what a cache hit pays once its result is noted.
func BenchmarkNoteKnown(b *testing.B) {
	targets := openTargets(b, b.TempDir(), TargetOptions{})
	r, action := resultOf("bazel-out/k8-fastbuild/bin/app/grep"), actionOf("a")
	for b.Loop() {
		targets.Note("//app:grep", "CppLink", action, r)
	}
}
