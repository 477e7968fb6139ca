package receipt

import (
	"fmt"
	"maps"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// entries is what an action left behind, in words: path to kind and content. The exit code stands under
// the empty path.
func entries(r *repb.ActionResult) map[string]string {
	all := map[string]string{"": fmt.Sprintf("exit code %d", r.GetExitCode())}
	for _, f := range r.GetOutputFiles() {
		kind := "file"
		if f.GetIsExecutable() {
			kind = "executable file"
		}
		all[f.GetPath()] = kind + " " + name(f.GetDigest())
	}
	for _, d := range r.GetOutputDirectories() {
		content := name(d.GetTreeDigest())
		if d.GetTreeDigest() == nil {
			content = name(d.GetRootDirectoryDigest())
		}
		all[d.GetPath()] = "directory " + content
	}
	//lint:ignore SA1019 executors of API 2.0 fill these lists
	for _, links := range [][]*repb.OutputSymlink{r.GetOutputSymlinks(), r.GetOutputFileSymlinks(), r.GetOutputDirectorySymlinks()} {
		for _, l := range links {
			all[l.GetPath()] = "symlink to " + l.GetTarget()
		}
	}
	return all
}

func name(d *repb.Digest) string { return fmt.Sprintf("%s/%d", d.GetHash(), d.GetSizeBytes()) }

func sortedPaths(all map[string]string) []string { return slices.Sorted(maps.Keys(all)) }

// Difference is one output about which two results disagree. An empty value means that there is none;
// an empty path stands for the exit code.
type Difference struct{ Path, One, Other string }

// Compare gives the outputs in which two results differ, ordered by path: none for the same outputs.
func Compare(one, other *repb.ActionResult) []Difference {
	a, b := entries(one), entries(other)
	both := maps.Clone(a)
	maps.Copy(both, b)
	var all []Difference
	for _, path := range sortedPaths(both) {
		if a[path] != b[path] {
			all = append(all, Difference{path, a[path], b[path]})
		}
	}
	return all
}
