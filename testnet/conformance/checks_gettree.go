package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// getTreeChecks hold of GetTree.
func getTreeChecks() []Check {
	cas := []Feature{Cache}
	return []Check{
		{
			Claim: "GetTree_gives_every_directory", Needs: cas, Run: checkTreeWhole, Source: "rpc GetTree",
			Rule: "the root and every directory below it, each at least once, in any order",
		},
		{
			Claim: "GetTree_works_in_every_function", Needs: cas, Run: checkTreeFunctions, Source: "GetTreeRequest.digest_function",
			Rule: "children are looked up in the digest function of the request",
		},
		{
			Claim: "GetTree_is_NOT_FOUND_for_an_absent_root_alone", Needs: cas, Run: checkTreeRoot, Source: "rpc GetTree, Errors",
			Rule: "NOT_FOUND says that the root is absent, and nothing else does",
		},
		{
			Claim: "GetTree_leaves_absent_subtrees_out", Needs: cas, Run: checkTreeHole, Source: "rpc GetTree: the portion present",
			Rule: "a missing child does not fail the call: the rest is returned",
		},
		{
			Claim: "GetTree_honours_page_size", Needs: cas, Level: Should, Run: checkTreePages, Source: "GetTreeRequest.page_size",
			Rule: "no response carries more directories than page_size",
		},
		{
			Claim: "GetTree_continues_from_a_page_token", Needs: cas, Run: checkTreeToken, Source: "GetTreeRequest.page_token",
			Rule: "a token of an earlier response gives the pages after it; together they are the whole tree",
		},
		{
			Claim: "GetTree_refuses_a_foreign_page_token", Needs: cas, Level: Should, Run: checkTreeForeignToken, Source: "GetTreeRequest.page_token",
			Rule: "a token that no response gave gets INVALID_ARGUMENT",
		},
	}
}

// tree makes one GetTree call and joins its responses; instance and function are filled in.
func (s *Subject) tree(ctx context.Context, req *repb.GetTreeRequest) ([]*repb.Directory, error) {
	pages, err := s.treePages(ctx, req)
	var dirs []*repb.Directory
	for _, p := range pages {
		dirs = append(dirs, p.Directories...)
	}
	return dirs, err
}

func (s *Subject) treePages(ctx context.Context, req *repb.GetTreeRequest) ([]*repb.GetTreeResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req.InstanceName, req.DigestFunction = s.Instance, s.Function.Proto()
	stream, err := s.CAS.GetTree(ctx, req)
	if err != nil {
		return nil, err
	}
	var pages []*repb.GetTreeResponse
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return pages, nil
		}
		if err != nil {
			return pages, err
		}
		pages = append(pages, page)
	}
}

// sampleTree makes a root with width subdirectories of depth levels each, parents first. Every
// directory is unlike every other.
func (s *Subject) sampleTree(t T, width, depth int) []*repb.Directory {
	root := &repb.Directory{}
	all := []*repb.Directory{root}
	for i := range width {
		var below *repb.Directory
		var branch []*repb.Directory
		for range depth {
			dir := &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: s.Unseen()}}}
			if below != nil {
				dir.Directories = []*repb.DirectoryNode{{Name: "d", Digest: s.Digest(wire(t, below))}}
			}
			branch = append([]*repb.Directory{dir}, branch...)
			below = dir
		}
		root.Directories = append(root.Directories, &repb.DirectoryNode{Name: fmt.Sprintf("d%03d", i), Digest: s.Digest(wire(t, below))})
		all = append(all, branch...)
	}
	return all
}

// putTree uploads directories and gives the first one's digest.
func (s *Subject) putTree(ctx context.Context, t T, dirs []*repb.Directory) *repb.Digest {
	t.Helper()
	var blobs [][]byte
	for _, d := range dirs {
		blobs = append(blobs, wire(t, d))
	}
	return s.Put(ctx, t, blobs...)[0]
}

// wantDirectories fails unless got holds exactly the directories of want, repetitions allowed.
func wantDirectories(t T, got, want []*repb.Directory) {
	t.Helper()
	expected, seen := map[string]bool{}, map[string]bool{}
	for _, d := range want {
		expected[string(wire(t, d))] = true
	}
	for _, d := range got {
		key := string(wire(t, d))
		if seen[key] = true; !expected[key] {
			t.Errorf("GetTree gave a directory that is not in the tree: %v", d)
		}
	}
	if len(seen) < len(expected) {
		t.Errorf("GetTree gave %d of %d directories", len(seen), len(expected))
	}
}

func checkTreeWhole(ctx context.Context, t T, s *Subject) {
	dirs := s.sampleTree(t, 5, 4)
	got, err := s.tree(ctx, &repb.GetTreeRequest{RootDigest: s.putTree(ctx, t, dirs)})
	if err != nil {
		t.Fatalf("GetTree: %v", err)
	}
	wantDirectories(t, got, dirs)
}

func checkTreeFunctions(ctx context.Context, t T, s *Subject) {
	for _, f := range s.Functions() {
		s := s.With(f)
		dirs := s.sampleTree(t, 2, 2)
		got, err := s.tree(ctx, &repb.GetTreeRequest{RootDigest: s.putTree(ctx, t, dirs)})
		if err != nil {
			t.Errorf("%s: GetTree: %v", f, err)
		}
		wantDirectories(t, got, dirs)
	}
}

func checkTreeRoot(ctx context.Context, t T, s *Subject) {
	_, err := s.tree(ctx, &repb.GetTreeRequest{RootDigest: s.Unseen()})
	wantCode(t, err, "GetTree of an absent root", codes.NotFound)
}

func checkTreeHole(ctx context.Context, t T, s *Subject) {
	dirs := s.sampleTree(t, 3, 2) // root, then two of each branch
	present := append([]*repb.Directory{dirs[0], dirs[1], dirs[3]}, dirs[5:]...)
	got, err := s.tree(ctx, &repb.GetTreeRequest{RootDigest: s.putTree(ctx, t, present)})
	if err != nil {
		t.Fatalf("GetTree of a tree with two absent children: %v", err)
	}
	wantDirectories(t, got, present)
}

func checkTreePages(ctx context.Context, t T, s *Subject) {
	dirs := s.sampleTree(t, 6, 2)
	pages, err := s.treePages(ctx, &repb.GetTreeRequest{RootDigest: s.putTree(ctx, t, dirs), PageSize: 3})
	if err != nil {
		t.Fatalf("GetTree with page_size 3: %v", err)
	}
	for i, p := range pages {
		if len(p.Directories) > 3 {
			t.Errorf("response %d of GetTree with page_size 3 has %d directories", i, len(p.Directories))
		}
	}
}

func checkTreeToken(ctx context.Context, t T, s *Subject) {
	dirs := s.sampleTree(t, 6, 2)
	root := s.putTree(ctx, t, dirs)
	first, err := s.treePages(ctx, &repb.GetTreeRequest{RootDigest: root, PageSize: 3})
	if err != nil || len(first) == 0 {
		t.Fatalf("GetTree with page_size 3: %d responses, %v", len(first), err)
	}
	got := first[0].Directories
	token := first[0].NextPageToken
	for range len(dirs) {
		if token == "" {
			break
		}
		pages, err := s.treePages(ctx, &repb.GetTreeRequest{RootDigest: root, PageSize: 3, PageToken: token})
		if err != nil || len(pages) == 0 {
			t.Fatalf("GetTree from token %q: %d responses, %v", token, len(pages), err)
		}
		got, token = append(got, pages[0].Directories...), pages[0].NextPageToken
	}
	if token == "" && len(first) > 1 && first[0].NextPageToken == "" {
		t.Errorf("GetTree gave %d responses and the first has no next_page_token", len(first))
	}
	wantDirectories(t, got, dirs)
	if last := first[len(first)-1]; len(got) >= len(dirs) && countDirectories(first) >= len(dirs) && last.NextPageToken != "" {
		t.Errorf("the last response has next_page_token %q, want none", last.NextPageToken)
	}
}

func countDirectories(pages []*repb.GetTreeResponse) int {
	seen := map[string]bool{}
	for _, p := range pages {
		for _, d := range p.Directories {
			b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(d) // a message that was received marshals
			seen[string(b)] = true
		}
	}
	return len(seen)
}

func checkTreeForeignToken(ctx context.Context, t T, s *Subject) {
	root := s.putTree(ctx, t, s.sampleTree(t, 2, 1))
	_, err := s.tree(ctx, &repb.GetTreeRequest{RootDigest: root, PageToken: "no-server-gave-this-token"})
	wantCode(t, err, "GetTree with an invented page_token", codes.InvalidArgument)
}
