package conformance

import (
	"context"
	"fmt"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
)

// inputChecks hold of input roots that no machine should unpack.
func inputChecks() []Check {
	exec, src := []Feature{Execution}, "message Directory"
	return []Check{
		{
			Claim: "unsafe_names_are_refused", Needs: exec, Run: checkUnsafeNames, Source: src + ": exactly one segment",
			Rule: "a name that is empty, ., .., or contains / or NUL gets INVALID_ARGUMENT, in each of the three lists",
		},
		{
			Claim: "names_twice_in_a_list_are_refused", Needs: exec, Level: Should, Run: checkDuplicateNames, Source: src + ": unique path segment",
			Rule: "INVALID_ARGUMENT",
		},
		{
			Claim: "names_twice_across_the_lists_are_refused", Needs: exec, Level: Should, Run: checkDuplicateAcross, Source: src + ": unique path segment",
			Rule: "a file, a directory and a symlink may not share a name: INVALID_ARGUMENT",
		},
		{
			Claim: "malformed_directories_are_refused", Needs: exec, Run: checkMalformedDirectory, Source: src,
			Rule: "an input root that is no Directory, and nodes without a valid digest, get INVALID_ARGUMENT",
		},
		{
			Claim: "unsorted_directories_do_not_hang", Needs: exec, Level: Should, Run: checkUnsortedDirectory, Source: src + "; rpc Execute: MAY proceed",
			Rule: "a directory out of order is executed or refused with INVALID_ARGUMENT",
		},
		{
			Claim: "a_tree_too_deep_is_refused", Needs: exec, Run: checkDeepTree, Source: "security: paths end at 4096 bytes",
			Rule: "3,000 levels of directories get an error about the request, soon, and no crash",
		},
		{
			Claim: "a_tree_too_wide_is_refused", Needs: exec, Run: checkWideTree, Source: "security: a few kilobytes describe 10^12 directories",
			Rule: "40 levels, each twice the one below, get an error about the request, soon, and no full disk",
		},
		{
			Claim: "the_server_is_well_after_bad_inputs", Needs: exec, Run: checkWell, Source: "security",
			Rule: "after roots that were refused an ordinary action executes",
		},
	}
}

// wantRootRefused executes on a root and wants INVALID_ARGUMENT (or another refusal when lenient).
func (s *Subject) wantRootRefused(ctx context.Context, t T, what string, root *repb.Digest, also ...codes.Code) {
	t.Helper()
	r := s.runCommand(ctx, t, s.Shell("true"), root)
	for _, code := range append(also, codes.InvalidArgument) {
		if r.Code() == code {
			return
		}
	}
	t.Errorf("an input root with %s ended with %s (%s), want %v", what, r.Code(), r.Why(), append(also, codes.InvalidArgument))
}

func checkUnsafeNames(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(10))[0]
	for _, name := range []string{"", ".", "..", "a/b", "/abs", "../up", "nul\x00nul"} {
		for list, dir := range map[string]*repb.Directory{
			"file":      {Files: []*repb.FileNode{{Name: name, Digest: d}}},
			"directory": {Directories: []*repb.DirectoryNode{{Name: name, Digest: s.Empty()}}},
			"symlink":   {Symlinks: []*repb.SymlinkNode{{Name: name, Target: "x"}}},
		} {
			s.wantRootRefused(ctx, t, fmt.Sprintf("a %s named %q", list, name), s.PutMessage(ctx, t, dir))
		}
	}
}

func checkDuplicateNames(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(10))[0]
	for list, dir := range map[string]*repb.Directory{
		"files":       {Files: []*repb.FileNode{{Name: "a", Digest: d}, {Name: "a", Digest: d}}},
		"directories": {Directories: []*repb.DirectoryNode{{Name: "a", Digest: s.Empty()}, {Name: "a", Digest: s.Empty()}}},
		"symlinks":    {Symlinks: []*repb.SymlinkNode{{Name: "a", Target: "x"}, {Name: "a", Target: "y"}}},
	} {
		s.wantRootRefused(ctx, t, "two "+list+" of one name", s.PutMessage(ctx, t, dir))
	}
}

func checkDuplicateAcross(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(10))[0]
	f, dir, link := []*repb.FileNode{{Name: "a", Digest: d}}, []*repb.DirectoryNode{{Name: "a", Digest: s.Empty()}}, []*repb.SymlinkNode{{Name: "a", Target: "x"}}
	for what, root := range map[string]*repb.Directory{
		"a file and a directory of one name":    {Files: f, Directories: dir},
		"a file and a symlink of one name":      {Files: f, Symlinks: link},
		"a directory and a symlink of one name": {Directories: dir, Symlinks: link},
	} {
		s.wantRootRefused(ctx, t, what, s.PutMessage(ctx, t, root))
		nested := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "sub", Digest: s.PutMessage(ctx, t, root)}}}
		s.wantRootRefused(ctx, t, what+" below", s.PutMessage(ctx, t, nested))
	}
}

func checkMalformedDirectory(ctx context.Context, t T, s *Subject) {
	garbage := s.Put(ctx, t, append([]byte("\xff\xff\xff"), s.Blob(40)...))[0]
	s.wantRootRefused(ctx, t, "bytes that are no message", garbage)
	for what, dir := range map[string]*repb.Directory{
		"a file without a digest":        {Files: []*repb.FileNode{{Name: "a"}}},
		"a directory without a digest":   {Directories: []*repb.DirectoryNode{{Name: "a"}}},
		"a file with a short hash":       {Files: []*repb.FileNode{{Name: "a", Digest: &repb.Digest{Hash: "abc", SizeBytes: 3}}}},
		"a file of negative size":        {Files: []*repb.FileNode{{Name: "a", Digest: &repb.Digest{Hash: s.Empty().Hash, SizeBytes: -3}}}},
		"a directory that is no message": {Directories: []*repb.DirectoryNode{{Name: "a", Digest: garbage}}},
	} {
		s.wantRootRefused(ctx, t, what, s.PutMessage(ctx, t, dir))
	}
}

func checkUnsortedDirectory(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(10))[0]
	root := s.PutMessage(ctx, t, &repb.Directory{Files: []*repb.FileNode{{Name: "b", Digest: d}, {Name: "a", Digest: d}}})
	r := s.runCommand(ctx, t, s.Shell("ls"), root)
	if r.Code() == codes.OK {
		if got := strings.Fields(s.said(ctx, t, r)); len(got) != 2 {
			t.Errorf("an unsorted directory of two files has %v", got)
		}
	} else if r.Code() != codes.InvalidArgument {
		t.Errorf("an unsorted directory ended with %s (%s), want OK or InvalidArgument", r.Code(), r.Why())
	}
}

// tower uploads levels of directories, each with width entries that are the level below.
func (s *Subject) tower(ctx context.Context, t T, levels, width int) *repb.Digest {
	t.Helper()
	blobs := [][]byte{wire(t, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: s.Empty()}}})}
	for range levels {
		dir := &repb.Directory{}
		below := s.Digest(blobs[len(blobs)-1])
		for i := range width {
			dir.Directories = append(dir.Directories, &repb.DirectoryNode{Name: fmt.Sprintf("d%d", i), Digest: below})
		}
		blobs = append(blobs, wire(t, dir))
	}
	ds := s.Put(ctx, t, blobs...)
	return ds[len(ds)-1]
}

func checkDeepTree(ctx context.Context, t T, s *Subject) {
	s.wantRootRefused(ctx, t, "3,000 levels", s.tower(ctx, t, 3000, 1), codes.FailedPrecondition, codes.ResourceExhausted)
}

func checkWideTree(ctx context.Context, t T, s *Subject) {
	s.wantRootRefused(ctx, t, "2^40 directories", s.tower(ctx, t, 40, 2), codes.FailedPrecondition, codes.ResourceExhausted)
}

func checkWell(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(10))[0]
	for what, root := range map[string]*repb.Digest{
		"a name that is ..": s.PutMessage(ctx, t, &repb.Directory{Files: []*repb.FileNode{{Name: "..", Digest: d}}}),
		"5,000 levels":      s.tower(ctx, t, 5000, 1),
		"2^30 directories":  s.tower(ctx, t, 30, 2),
	} {
		if r := s.runCommand(ctx, t, s.Shell("true"), root); r.Code() == codes.OK {
			t.Errorf("an input root with %s was executed", what)
		}
	}
	if got := s.said(ctx, t, s.ExecuteShell(ctx, t, "echo well")); got != "well" {
		t.Errorf("an ordinary action printed %q", got)
	}
}
