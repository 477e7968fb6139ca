package share_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// directory stores a directory whose bytes nobody gets who decodes and encodes them: a field of a later version comes first.
func directory(t testing.TB, s *casfake.Store, name string, subs ...digest.Digest) digest.Digest {
	t.Helper()
	dir := &repb.Directory{Files: []*repb.FileNode{{Name: "of" + name, Digest: digest.SHA256.Of([]byte(name)).Proto()}}}
	for i, sub := range subs {
		dir.Directories = append(dir.Directories, &repb.DirectoryNode{Name: fmt.Sprint("sub", i), Digest: sub.Proto()})
	}
	b, err := proto.Marshal(dir)
	if err != nil {
		t.Fatal(err)
	}
	b = append(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1), b...)
	d := digest.SHA256.Of(b)
	if err := s.Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
	return d
}

// grow stores a tree of so many levels, each directory with three below it, of which two are the same, and gives its root.
func grow(t testing.TB, s *casfake.Store, name string, levels int) digest.Digest {
	t.Helper()
	if levels == 1 {
		return directory(t, s, name)
	}
	twice := grow(t, s, name+"x", levels-1)
	return directory(t, s, name, twice, grow(t, s, name+"y", levels-1), twice, digest.SHA256.Empty())
}

// directories loads the tree at root from what is here and gives how many directories it has.
func directories(t testing.TB, s *casfake.Store, root digest.Digest) int {
	t.Helper()
	loaded, err := tree.Load(t.Context(), s, root, tree.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return len(loaded.Directories())
}

// A tree comes in one call, whatever its depth, and many who want it at once make one call.
func TestWholeTree(t *testing.T) {
	nodes := lab(t, 2, nil)
	root := grow(t, nodes[0].store, "", 9)
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			if _, err := nodes[1].fetcher.FetchTree(t.Context(), root, []peer.ID{nodes[0].ID}); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if here, there := directories(t, nodes[1].store, root), directories(t, nodes[0].store, root); here != there || here < 500 {
		t.Errorf("%d of %d directories came", here, there)
	}
	if n := nodes[0].Calls(); n != 1 {
		t.Errorf("%d calls", n)
	}
	if s := nodes[1].fetcher.Standings()[nodes[0].ID]; s.Lies+s.Failed+s.Empty > 0 || s.Blobs < 500 {
		t.Errorf("standing %+v", s)
	}
}

// Level by level a tree comes in one batch a level.
func TestTreeByLevels(t *testing.T) {
	nodes := lab(t, 2, nil)
	root := grow(t, nodes[0].store, "", 9)
	if _, err := tree.Load(t.Context(), levels{nodes[1], []peer.ID{nodes[0].ID}}, root, tree.Limits{}); err != nil {
		t.Fatal(err)
	}
	if n := nodes[0].Calls(); n != 9 {
		t.Errorf("%d calls for 9 levels", n)
	}
}

// Who failed just now is asked last, and so not at all where one is asked.
func TestBestFirst(t *testing.T) {
	nodes := lab(t, 3, func(i int, s *share.Blobs) blobServer {
		if i != 1 {
			return nil
		}
		return &forest{s, func(grpc.ServerStreamingServer[repb.GetTreeResponse]) error {
			return status.Error(codes.Internal, "no")
		}}
	})
	first, second := grow(t, nodes[0].store, "first", 3), grow(t, nodes[0].store, "second", 3)
	hints := []peer.ID{nodes[1].ID, nodes[0].ID}
	for i, root := range []digest.Digest{first, second} {
		if _, err := nodes[2].fetcher.FetchTree(t.Context(), root, hints); err != nil {
			t.Fatal(err)
		}
		absent, err := nodes[2].store.Missing(t.Context(), []digest.Digest{root})
		if came := len(absent) == 0; err != nil || came != (i == 1) {
			t.Errorf("tree %d came: %v, %v", i+1, came, err)
		}
	}
	if n := nodes[1].Calls(); n != 1 {
		t.Errorf("who failed was asked %d times", n)
	}
}

// forest is an adversary's GetTree.
type forest struct {
	*share.Blobs
	tree func(to grpc.ServerStreamingServer[repb.GetTreeResponse]) error
}

func (f *forest) GetTree(_ *repb.GetTreeRequest, to grpc.ServerStreamingServer[repb.GetTreeResponse]) error {
	return f.tree(to)
}

// raw is a message with directories as they are.
func raw(dirs ...[]byte) *repb.GetTreeResponse {
	var b []byte
	for _, dir := range dirs {
		b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), dir)
	}
	r := &repb.GetTreeResponse{}
	r.ProtoReflect().SetUnknown(b)
	return r
}

// A peer that sends something else than the tree, too much, too little, slowly or nothing costs a bounded time; nothing it
// made up is stored, what it is shows in its standing, and the tree comes from another.
func TestTreeAdversaries(t *testing.T) {
	honest := casfake.New(cas.Options{})
	root := grow(t, honest, "", 5)
	whole, err := honest.GetBatch(t.Context(), []digest.Digest{root})
	if err != nil {
		t.Fatal(err)
	}
	made := []byte("\x0a\x03\x0a\x01z") // a directory nobody refers to
	forever := func(to grpc.ServerStreamingServer[repb.GetTreeResponse], first, then *repb.GetTreeResponse) error {
		for err := to.Send(first); ; err = to.Send(then) {
			if err != nil {
				return err
			}
		}
	}
	type stream = grpc.ServerStreamingServer[repb.GetTreeResponse]
	for name, c := range map[string]struct {
		tree func(to stream) error
		lies bool
	}{
		"Swapper":            {func(to stream) error { return to.Send(raw(flip(whole[0]))) }, true},
		"stranger":           {func(to stream) error { return to.Send(raw(whole[0], made)) }, true},
		"Bomber, copies":     {func(to stream) error { return forever(to, raw(whole[0]), raw(whole[0])) }, true},
		"Bomber, strangers":  {func(to stream) error { return forever(to, raw(whole[0]), raw(made)) }, true},
		"Bomber, nothings":   {func(to stream) error { return forever(to, raw(whole[0]), &repb.GetTreeResponse{}) }, true},
		"Bomber, tokens":     {func(to stream) error { return forever(to, raw(), &repb.GetTreeResponse{NextPageToken: "more"}) }, true},
		"Bomber, empty dirs": {func(to stream) error { return to.Send(raw(slices.Repeat([][]byte{{}}, 1<<20)...)) }, true},
		"Bomber, zeros":      {func(to stream) error { return to.Send(raw(bytes.Repeat([]byte{0}, 7<<20))) }, true},
		"Truncator":          {func(to stream) error { return to.Send(raw(whole[0])) }, false},
		"Hoarder":            {func(stream) error { return status.Error(codes.NotFound, "not here") }, false},
		"Slowpoke":           {func(to stream) error { <-to.Context().Done(); return nil }, false},
		"one that fails":     {func(stream) error { return status.Error(codes.Internal, "no") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := lab(t, 3, func(i int, s *share.Blobs) blobServer {
				if i != 1 {
					return nil
				}
				return &forest{s, c.tree}
			})
			grow(t, nodes[0].store, "", 5)
			victim, bad := nodes[2], nodes[1]
			hints := []peer.ID{bad.ID, nodes[0].ID}
			if c.lies { // where nobody else is, a slow machine is not taken for a slow peer
				hints = hints[:1]
			}
			if _, err := victim.fetcher.FetchTree(t.Context(), root, hints); err != nil {
				t.Fatal(err)
			}
			if standing := victim.fetcher.Standings()[bad.ID]; (standing.Lies > 0) != c.lies {
				t.Errorf("the adversary's standing is %+v", standing)
			}
			if absent, _ := victim.store.Missing(t.Context(), []digest.Digest{digest.SHA256.Of(made), digest.SHA256.Of(flip(whole[0]))}); len(absent) != 2 {
				t.Error("something made up is stored")
			}
			getter := levels{victim, []peer.ID{bad.ID, nodes[0].ID}}
			if _, err := tree.Load(t.Context(), getter, root, tree.Limits{}); err != nil {
				t.Errorf("level by level: %v", err)
			}
		})
	}
}

// levels fetches a tree level by level.
type levels struct {
	node  *node
	hints []peer.ID
}

func (l levels) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	if _, err := l.node.fetcher.Fetch(ctx, ds, l.hints); err != nil {
		return nil, err
	}
	return l.node.store.GetBatch(ctx, ds)
}

// What is private is left out of a tree, with all below it, and a tree of a private root is not here.
func TestPrivateTree(t *testing.T) {
	nodes := lab(t, 2, nil)
	s := nodes[0].store
	leaf := directory(t, s, "leaf")
	hidden := directory(t, s, "hidden", leaf)
	open := directory(t, s, "open")
	root := directory(t, s, "root", hidden, open)
	hide(t, nodes[0].private, hidden)
	if _, err := nodes[1].fetcher.FetchTree(t.Context(), root, []peer.ID{nodes[0].ID}); err != nil {
		t.Fatal(err)
	}
	all := []digest.Digest{root, open, hidden, leaf}
	if absent, err := nodes[1].store.Missing(t.Context(), all); err != nil || !slices.Equal(absent, all[2:]) {
		t.Errorf("missing %v, %v", absent, err)
	}
	if _, err := nodes[1].fetcher.FetchTree(t.Context(), hidden, []peer.ID{nodes[0].ID}); err != nil {
		t.Fatal(err)
	}
	if st := nodes[1].fetcher.Standings()[nodes[0].ID]; st.Empty != 1 || st.Lies != 0 {
		t.Errorf("standing %+v", st)
	}
}

// A tree that is said to be larger than is sent is refused before more of it is read, and given up before more is taken.
func TestTreeTooLarge(t *testing.T) {
	nodes := lab(t, 2, nil)
	huge, err := digest.Parse(digest.SHA256, digest.SHA256.Of([]byte("huge")).Hex(), share.MaxTreeBytes)
	if err != nil {
		t.Fatal(err)
	}
	root := directory(t, nodes[0].store, "root", huge)
	conn, err := nodes[1].Bulk(t.Context(), nodes[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := repb.NewContentAddressableStorageClient(conn).GetTree(t.Context(), &repb.GetTreeRequest{RootDigest: root.Proto()})
	for err == nil {
		_, err = pages.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the tree ends with %v", err)
	}
	if _, err := nodes[1].fetcher.FetchTree(t.Context(), root, []peer.ID{nodes[0].ID}); err != nil {
		t.Error(err)
	}
	if st := nodes[1].fetcher.Standings()[nodes[0].ID]; st.Lies+st.Failed > 0 {
		t.Errorf("standing %+v", st)
	}
}

// A tree most of which is here is not sent to its end.
func TestTreeMostlyHere(t *testing.T) {
	nodes := lab(t, 2, nil)
	subs := make([]digest.Digest, 150)
	for i := range subs {
		wide := &repb.Directory{}
		for file := range 1000 {
			wide.Symlinks = append(wide.Symlinks, &repb.SymlinkNode{Name: fmt.Sprint(file), Target: fmt.Sprintf("%0100d", i)})
		}
		b, err := proto.Marshal(wide)
		if err != nil {
			t.Fatal(err)
		}
		subs[i] = digest.SHA256.Of(b)
		for _, x := range nodes {
			if err := x.store.Put(t.Context(), subs[i], b); err != nil {
				t.Fatal(err)
			}
		}
	}
	root := directory(t, nodes[0].store, "root", subs...)
	n, err := nodes[1].fetcher.FetchTree(t.Context(), root, []peer.ID{nodes[0].ID})
	if err != nil || n > 8<<20 {
		t.Errorf("%d bytes came, %v", n, err)
	}
	if absent, _ := nodes[1].store.Missing(t.Context(), []digest.Digest{root}); len(absent) > 0 {
		t.Error("not even the root came")
	}
}
