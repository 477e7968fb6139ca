package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate/memory"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// deaf is a locator that cannot tell anybody anything.
type deaf struct{ *memory.Locator }

func (deaf) Announce(context.Context, []cid.Key) error { return errors.New("nobody answers") }

// TestBlobIndex: what is large or a tree's root is announced once it is here, and taken back when it was evicted or became
// private; another locator is told everything.
func TestBlobIndex(t *testing.T) {
	store, err := cas.Open(t.TempDir(), cas.Options{MaxBytes: 4 << 20, MinFree: -1, Lease: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rule, err := share.ParseRule(nil, []string{"*.key"})
	if err != nil {
		t.Fatal(err)
	}
	private, err := share.OpenPrivate(t.TempDir(), rule, store)
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	keyer, mesh := cid.NewKeyer([]byte("of a mesh")), memory.New()
	index, own, other := newBlobIndex(store, private, keyer), mesh.Node(peer.ID{1}), mesh.Node(peer.ID{2})
	put := func(size int) digest.Digest {
		data := make([]byte, size)
		rand.Read(data)
		d := digest.SHA256.Of(data)
		if err := store.Put(t.Context(), d, data); err != nil {
			t.Fatal(err)
		}
		return d
	}
	has := func(what string, l *memory.Locator, d digest.Digest, want bool) {
		t.Helper()
		found, err := l.Find(t.Context(), []cid.Key{keyer.Blob(d)})
		if err != nil || (len(found[0]) > 0) != want {
			t.Errorf("%s: found %v, want %v, %v", what, found, want, err)
		}
	}
	large, small, root, secret := put(announcedFrom), put(announcedFrom-1), put(100), put(announcedFrom+1)
	absent := digest.SHA256.Of([]byte("a tree that is not here"))
	index.addResult(digest.SHA256, &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{TreeDigest: root.Proto()}, {RootDirectoryDigest: absent.Proto()}}})
	if err := index.tend(t.Context(), deaf{own}); err == nil {
		t.Error("that nobody could be told is not said")
	}
	if err := index.tend(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	has("a large blob", other, large, true)
	has("a small blob", other, small, false)
	has("a tree's root", other, root, true)
	has("a root that is not here", other, absent, false)
	has("a blob before it is private", other, secret, true)
	if err := private.Hide([]digest.Digest{secret}, share.ByName); err != nil {
		t.Fatal(err)
	}
	index.look()
	if err := index.tend(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	has("a private blob", other, secret, false)
	for range 20 { // the oldest leave
		put(1 << 20)
	}
	if store.Contains(large) {
		t.Fatal("nothing was evicted")
	}
	if err := index.tend(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	has("an evicted blob", other, large, false)
	next, far := memory.New(), put(2*announcedFrom)
	if err := index.tend(t.Context(), next.Node(peer.ID{1})); err != nil {
		t.Fatal(err)
	}
	has("a large blob in another locator", next.Node(peer.ID{2}), far, true)
}

// TestLargeBlobsAreFoundElsewhere: a member finds who has a blob that its provider lacks, or an action's input root, and fetches
// it there; also after that one was started again.
func TestLargeBlobsAreFoundElsewhere(t *testing.T) {
	ana, dir := executing(t, t.TempDir(), "node.name=ana"), t.TempDir()
	ben := executing(t, dir, "node.name=ben")
	defer func() { ana.stop() }()
	defer func() { ben.stop() }()
	ben.joins(t, ana)
	data := bytes.Repeat([]byte("large "), announcedFrom)
	d := digest.SHA256.Of(data)
	if err := ben.Node.store.Put(t.Context(), d, data); err != nil {
		t.Fatal(err)
	}
	ben.executed(t, ben.action(t, "cat in > out"))
	root, err := proto.Marshal(&repb.Directory{Files: []*repb.FileNode{{Name: "in", Digest: digest.SHA256.Of([]byte("input")).Proto()}}})
	if err != nil {
		t.Fatal(err)
	}
	located := func(d digest.Digest) {
		t.Helper()
		x, y := ana.Node.content.company.Load(), ben.Node.content.company.Load()
		eventually(t, "the index names ben alone", func() bool {
			y.blobs.look()
			_ = y.blobs.tend(t.Context(), y.onehop)
			found, err := x.onehop.Find(t.Context(), []cid.Key{x.keyer.Blob(d)})
			return err == nil && len(found[0]) == 1 && found[0][0] == ben.identity.ID()
		})
	}
	located(d)
	located(digest.SHA256.Of(root))
	ben.stop()
	ben = executing(t, dir, "node.name=ben")
	ben.sees(t, ana)
	ana.sees(t, ben)
	located(d)
	located(digest.SHA256.Of(root))
	eventually(t, "the input root is announced again, not only remembered by others", func() bool {
		index := ben.Node.content.company.Load().blobs
		index.round.Lock()
		defer index.round.Unlock()
		_, told := index.told[digest.SHA256.Of(root)]
		return told
	})
	eventually(t, "ana fetches it from ben", func() bool { // whom she may ask for longer than she waits for an answer
		missing, err := ana.Node.content.company.Load().fetcher.Fetch(t.Context(), []digest.Digest{d}, []peer.ID{ana.identity.ID()})
		if err != nil {
			t.Fatal(err)
		}
		return len(missing) == 0
	})
	if !ana.Node.store.Contains(d) {
		t.Error("it is not at ana")
	}
}

// TestKadNodes: with kad-dht as the locator of both, a member has another's result and finds its large blobs.
func TestKadNodes(t *testing.T) {
	noLeaks(t)
	ana, ben := executing(t, t.TempDir(), "node.name=ana", "mesh.locator=kad"), executing(t, t.TempDir(), "node.name=ben", "mesh.locator=kad")
	defer ana.stop()
	defer ben.stop()
	ben.joins(t, ana)
	action := ana.action(t, "head -c 300000 /dev/zero > out")
	ana.executed(t, action)
	x, y := ana.Node.content.company.Load(), ben.Node.content.company.Load()
	large := digest.SHA256.Of(make([]byte, 300000))
	for _, key := range []cid.Key{y.keyer.Result(action, ana.hostRoot()), y.keyer.Blob(large)} {
		eventually(t, "the DHT names ana alone", func() bool {
			x.blobs.look()
			_ = x.blobs.tend(t.Context(), x.large())
			found, err := y.kad.open().Find(t.Context(), []cid.Key{key})
			return err == nil && len(found[0]) == 1 && found[0][0] == ana.identity.ID()
		})
	}
	eventually(t, "ben has result and blob", func() bool { // a walk out of time is a miss
		_, err := ben.result(t, action)
		return err == nil && ben.Node.store.Contains(large)
	})
}

// TestMembersAreAsked: a blob that nobody was named for is found by asking the members, over the connection for small calls.
func TestMembersAreAsked(t *testing.T) {
	noLeaks(t)
	ana, ben := executing(t, t.TempDir(), "node.name=ana"), executing(t, t.TempDir(), "node.name=ben")
	ben.joins(t, ana)
	data := []byte("only ana has this, and told nobody")
	d := digest.SHA256.Of(data)
	if err := ana.Node.store.Put(t.Context(), d, data); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the blob is found", func() bool { // who answers late, on a busy machine, has nothing
		missing, err := ben.Node.content.company.Load().fetcher.Fetch(t.Context(), []digest.Digest{d}, nil)
		return err == nil && len(missing) == 0
	})
	conn, err := ben.mesh.transport.Control(t.Context(), ana.identity.ID())
	if err != nil {
		t.Fatal(err)
	}
	read := &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d.Proto()}}
	if _, err := repb.NewContentAddressableStorageClient(conn).BatchReadBlobs(t.Context(), read); status.Code(err) != codes.Unimplemented {
		t.Errorf("content comes where small calls must not wait: %v", err)
	}
}
