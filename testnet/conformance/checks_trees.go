package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"path"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// treeChecks hold of output directories.
func treeChecks() []Check {
	exec := []Feature{Execution}
	return []Check{
		{
			Claim: "an_output_directory_is_a_tree", Needs: exec, Run: checkTreeOutput, Source: "message OutputDirectory",
			Rule: "tree_digest names a Tree with every file, directory and empty directory below the path",
		},
		{
			Claim: "an_empty_output_directory_comes_back", Needs: exec, Run: checkEmptyTreeOutput, Source: "message OutputDirectory",
			Rule: "a directory without entries is a Tree with an empty root",
		},
		{
			Claim: "TREE_ONLY_gives_a_tree", Needs: exec, Run: checkTreeOnly, Source: "Command.OutputDirectoryFormat",
			Rule: "tree_digest is set",
		},
		{
			Claim: "DIRECTORY_ONLY_gives_directories", Needs: exec, Run: checkDirectoryOnly, Source: "Command.OutputDirectoryFormat; BuildStream asks for it",
			Rule: "root_directory_digest is set, and every directory below it is in the CAS",
		},
		{
			Claim: "TREE_AND_DIRECTORY_gives_both", Needs: exec, Run: checkTreeAndDirectory, Source: "Command.OutputDirectoryFormat; OutputDirectory.root_directory_digest",
			Rule: "root_directory_digest is the digest of the tree's root",
		},
		{
			Claim: "trees_are_deduplicated_with_parents_first", Needs: exec, Level: Should, Run: checkTreeSorted, Source: "OutputDirectory.is_topologically_sorted; message Tree",
			Rule: "each directory once, before its children",
		},
		{
			Claim: "is_topologically_sorted_is_true_where_it_is_set", Needs: exec, Run: checkTreeSaysSorted, Source: "OutputDirectory.is_topologically_sorted",
			Rule: "each directory once, before its children, in an encoding of the root's record and then the children's",
		},
		{
			Claim: "equal_directories_make_equal_trees", Needs: exec, Level: Should, Run: checkTreeStable, Source: "Tree.children: ordered consistently",
			Rule: "two actions that make the same directory in another order have the same tree_digest",
		},
		{
			Claim: "directories_of_trees_are_canonical", Needs: exec, Run: checkTreeCanonical, Source: "message Directory",
			Rule: "files, directories and symlinks are each sorted by name, by bytes",
		},
	}
}

func timestamp(seconds int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(seconds, 0)) }

// treeOf is the Tree of an output directory.
func (s *Subject) treeOf(ctx context.Context, t T, r *repb.ActionResult, name string) *repb.Tree {
	t.Helper()
	d := directory(r, name)
	if d == nil || d.TreeDigest == nil {
		t.Fatalf("output directory %s has no tree in the result %v", name, r)
	}
	tree := &repb.Tree{}
	if err := proto.Unmarshal(s.Get(ctx, t, d.TreeDigest), tree); err != nil {
		t.Fatalf("the tree of %s is no Tree: %v", name, err)
	}
	if tree.Root == nil {
		tree.Root = &repb.Directory{}
	}
	return tree
}

// treeFiles lists the files of an output directory by path below it.
func (s *Subject) treeFiles(ctx context.Context, t T, r *repb.ActionResult, name string) []*repb.OutputFile {
	t.Helper()
	tree := s.treeOf(ctx, t, r, name)
	children := map[string]*repb.Directory{}
	for _, c := range tree.Children {
		children[show(s.Digest(wire(t, c)))] = c
	}
	return s.flatten(t, "", tree.Root, func(d *repb.Digest) *repb.Directory { return children[show(d)] })
}

// flatten lists the files below dir; lookup finds a child.
func (s *Subject) flatten(t T, prefix string, dir *repb.Directory, lookup func(*repb.Digest) *repb.Directory) []*repb.OutputFile {
	t.Helper()
	var files []*repb.OutputFile
	for _, f := range dir.Files {
		files = append(files, &repb.OutputFile{
			Path: path.Join(prefix, f.Name), Digest: f.Digest, IsExecutable: f.IsExecutable, NodeProperties: f.NodeProperties,
		})
	}
	for _, d := range dir.Directories {
		child := lookup(d.Digest)
		if child == nil {
			t.Fatalf("directory %s of the output is nowhere: digest %s", path.Join(prefix, d.Name), show(d.Digest))
		}
		files = append(files, s.flatten(t, path.Join(prefix, d.Name), child, lookup)...)
	}
	return files
}

// wantTree fails unless the output directory holds exactly these files.
func (s *Subject) wantTree(ctx context.Context, t T, r *repb.ActionResult, name string, want map[string]string) {
	t.Helper()
	s.wantFiles(ctx, t, name, s.treeFiles(ctx, t, r, name), want)
}

func (s *Subject) wantFiles(ctx context.Context, t T, name string, files []*repb.OutputFile, want map[string]string) {
	t.Helper()
	for _, f := range files {
		content, expected := want[f.Path]
		if !expected {
			t.Errorf("%s has the file %s, unexpected", name, f.Path)
		} else if got := string(s.Get(ctx, t, f.Digest)); got != content {
			t.Errorf("%s/%s is %q, want %q", name, f.Path, got, content)
		}
	}
	if len(files) < len(want) {
		t.Errorf("%s has %d files, want %d", name, len(files), len(want))
	}
}

// sample makes a directory d with equal and empty subdirectories.
const sample = `mkdir -p d/a/x d/b/x d/empty; echo 1 > d/f; echo 2 > d/a/x/g; echo 2 > d/b/x/g; echo 3 > d/z`

func sampleFiles() map[string]string {
	return map[string]string{"f": "1\n", "z": "3\n", "a/x/g": "2\n", "b/x/g": "2\n"}
}

// sampleOutput executes the sample in a format.
func (s *Subject) sampleOutput(ctx context.Context, t T, format repb.Command_OutputDirectoryFormat) *repb.ActionResult {
	t.Helper()
	c := s.Shell(sample, "d")
	c.OutputDirectoryFormat = format
	return s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
}

func checkTreeOutput(ctx context.Context, t T, s *Subject) {
	result := s.sampleOutput(ctx, t, repb.Command_TREE_ONLY)
	s.wantTree(ctx, t, result, "d", sampleFiles())
	hollow := false
	for _, d := range s.treeOf(ctx, t, result, "d").Root.Directories {
		hollow = hollow || d.Name == "empty" && d.Digest.SizeBytes == 0
	}
	if !hollow {
		t.Errorf("the tree lacks the empty directory")
	}
}

func checkEmptyTreeOutput(ctx context.Context, t T, s *Subject) {
	result := s.Result(ctx, t, s.ExecuteShell(ctx, t, "mkdir d", "d"), 0)
	s.wantTree(ctx, t, result, "d", nil)
}

func checkTreeOnly(ctx context.Context, t T, s *Subject) {
	s.wantTree(ctx, t, s.sampleOutput(ctx, t, repb.Command_TREE_ONLY), "d", sampleFiles())
}

// wantDirectoryForm follows root_directory_digest through the CAS.
func (s *Subject) wantDirectoryForm(ctx context.Context, t T, result *repb.ActionResult) {
	t.Helper()
	d := directory(result, "d")
	if d == nil || d.RootDirectoryDigest == nil {
		t.Fatalf("the output directory has no root_directory_digest: %v", result)
	}
	lookup := func(p *repb.Digest) *repb.Directory {
		dir := &repb.Directory{}
		if err := proto.Unmarshal(s.Get(ctx, t, p), dir); err != nil {
			t.Fatalf("%s is no Directory: %v", show(p), err)
		}
		return dir
	}
	s.wantFiles(ctx, t, "d", s.flatten(t, "", lookup(d.RootDirectoryDigest), lookup), sampleFiles())
}

func checkDirectoryOnly(ctx context.Context, t T, s *Subject) {
	s.wantDirectoryForm(ctx, t, s.sampleOutput(ctx, t, repb.Command_DIRECTORY_ONLY))
}

func checkTreeAndDirectory(ctx context.Context, t T, s *Subject) {
	result := s.sampleOutput(ctx, t, repb.Command_TREE_AND_DIRECTORY)
	s.wantDirectoryForm(ctx, t, result)
	s.wantTree(ctx, t, result, "d", sampleFiles())
	root := s.Digest(wire(t, s.treeOf(ctx, t, result, "d").Root))
	if got := directory(result, "d").RootDirectoryDigest; !proto.Equal(got, root) {
		t.Errorf("root_directory_digest is %s, the tree's root has %s", show(got), show(root))
	}
}

func checkTreeSorted(ctx context.Context, t T, s *Subject) {
	s.wantSorted(ctx, t, s.sampleOutput(ctx, t, repb.Command_TREE_ONLY))
}

func checkTreeSaysSorted(ctx context.Context, t T, s *Subject) {
	result := s.sampleOutput(ctx, t, repb.Command_TREE_ONLY)
	d := directory(result, "d")
	if d == nil || !d.IsTopologicallySorted {
		t.Skipf("the server does not say that its trees are sorted")
	}
	s.wantSorted(ctx, t, result)
	wantSortedEncoding(t, s.Get(ctx, t, d.TreeDigest))
}

// wantSorted holds the tree of d against OutputDirectory.is_topologically_sorted.
func (s *Subject) wantSorted(ctx context.Context, t T, result *repb.ActionResult) {
	t.Helper()
	tree := s.treeOf(ctx, t, result, "d")
	named := map[string]bool{}
	seen := map[string]bool{}
	for i, dir := range append([]*repb.Directory{tree.Root}, tree.Children...) {
		d := show(s.Digest(wire(t, dir)))
		if i > 0 && seen[d] {
			t.Errorf("the tree has a directory twice: %v", dir)
		}
		if i > 0 && !named[d] {
			t.Errorf("the tree has a child before its parent, or without one: %v", dir)
		}
		seen[d] = true
		for _, c := range dir.Directories {
			if seen[show(c.Digest)] {
				t.Errorf("the tree has a child before one of its parents: %v", dir)
			}
			named[show(c.Digest)] = true
		}
	}
}

// wantSortedEncoding holds the bytes of a Tree against OutputDirectory.is_topologically_sorted:
// records of the root's tag once, then of the children's.
func wantSortedEncoding(t T, data []byte) {
	t.Helper()
	for i := 0; len(data) > 0; i++ {
		want := byte(2<<3 | protowire.BytesType)
		if i == 0 {
			want = 1<<3 | byte(protowire.BytesType)
		}
		n, size := binary.Uvarint(data[1:])
		if data[0] != want || size <= 0 || n > uint64(len(data)-1-size) {
			t.Errorf("record %d of a tree said to be topologically sorted begins with %#x, want %#x and a length", i, data[0], want)
			return
		}
		data = data[1+size+int(n):]
	}
}

func checkTreeStable(ctx context.Context, t T, s *Subject) {
	first := s.sampleOutput(ctx, t, repb.Command_TREE_ONLY)
	c := s.Shell("mkdir -p d/empty d/b/x d/a/x; echo 3 > d/z; echo 2 > d/b/x/g; sleep 0.05; echo 2 > d/a/x/g; echo 1 > d/f", "d")
	second := s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
	if a, b := directory(first, "d"), directory(second, "d"); !proto.Equal(a.GetTreeDigest(), b.GetTreeDigest()) {
		t.Errorf("equal directories have trees %s and %s", show(a.GetTreeDigest()), show(b.GetTreeDigest()))
	}
}

func checkTreeCanonical(ctx context.Context, t T, s *Subject) {
	script := "mkdir -p d/b d/B d/a1 d/a.x; for n in z a Z 10 9 é _; do echo $n > d/f$n; ln -s x d/l$n; done"
	tree := s.treeOf(ctx, t, s.Result(ctx, t, s.ExecuteShell(ctx, t, script, "d"), 0), "d")
	var last [3]string
	for i, names := range [][]string{names(tree.Root.Files), names(tree.Root.Directories), names(tree.Root.Symlinks)} {
		if len(names) == 0 {
			t.Errorf("the tree lacks one of files, directories and symlinks: %v", tree.Root)
		}
		for _, name := range names {
			if bytes.Compare([]byte(last[i]), []byte(name)) >= 0 {
				t.Errorf("%q comes after %q in a directory", name, last[i])
			}
			last[i] = name
		}
	}
}

func names[N interface{ GetName() string }](nodes []N) []string {
	var list []string
	for _, n := range nodes {
		list = append(list, n.GetName())
	}
	return list
}
