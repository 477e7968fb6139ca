package node

import (
	"context"
	"maps"
	"slices"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/share"
)

// announcedFrom is the size of the smallest blob that is announced by itself; smaller ones are found with their trees and
// results.
const announcedFrom = 256 << 10

// maxRoots bounds how many tree roots are remembered; the index forgets what is beyond it with the next round.
const maxRoots = 1 << 17

// blobIndex announces the large blobs and the tree roots that are in the store, and takes back what is not any more.
type blobIndex struct {
	store   *cas.Store
	private *share.Private
	keyer   *cid.Keyer

	mu     sync.Mutex // guards roots
	roots  map[digest.Digest]struct{}
	dirty  bool
	round  sync.Mutex // one round at a time; guards what follows
	told   map[digest.Digest]struct{}
	to     locate.Locator // who was told
	before cas.Stat       // of the store, at the last round
}

func newBlobIndex(store *cas.Store, private *share.Private, keyer *cid.Keyer) *blobIndex {
	return &blobIndex{store: store, private: private, keyer: keyer, roots: map[digest.Digest]struct{}{}, told: map[digest.Digest]struct{}{}}
}

// add notes tree roots: the next round announces those that are here.
func (b *blobIndex) add(roots ...digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range roots {
		if _, known := b.roots[d]; !known && !d.IsEmpty() && len(b.roots) < maxRoots {
			b.roots[d] = struct{}{}
			b.dirty = true
		}
	}
}

// addResult notes the trees of a result.
func (b *blobIndex) addResult(fn digest.Function, r *repb.ActionResult) {
	for _, o := range r.GetOutputDirectories() {
		for _, p := range []*repb.Digest{o.TreeDigest, o.RootDirectoryDigest} {
			if d, err := digest.FromProto(fn, p); p != nil && err == nil {
				b.add(d)
			}
		}
	}
}

// addInputs notes the input roots of actions that are here.
func (b *blobIndex) addInputs(ctx context.Context, actions []digest.Digest) error {
	for some := range slices.Chunk(actions, 1024) {
		data, err := b.store.GetBatch(ctx, some)
		if err != nil {
			return err
		}
		for i, message := range data {
			var a repb.Action
			if message == nil || proto.Unmarshal(message, &a) != nil {
				continue
			}
			if root, err := digest.FromProto(some[i].Function(), a.InputRootDigest); err == nil {
				b.add(root)
			}
		}
	}
	return nil
}

// tend makes one round: to is told of what is new here, and what went since the last one is taken back. Nothing is looked at
// while nothing has changed. A failure is made good by the next round.
func (b *blobIndex) tend(ctx context.Context, to locate.Locator) error {
	b.round.Lock()
	defer b.round.Unlock()
	stat, changed := b.changed(to)
	if !changed {
		return nil
	}
	if to != b.to { // it knows nothing yet
		clear(b.told)
	}
	now, err := b.present()
	if err != nil {
		return err
	}
	var fresh, gone []digest.Digest
	for d := range now {
		if _, is := b.told[d]; !is {
			fresh = append(fresh, d)
		}
	}
	for d := range b.told {
		if _, is := now[d]; !is {
			gone = append(gone, d)
		}
	}
	if len(gone) > 0 {
		if err := to.Forget(ctx, b.keys(gone)); err != nil {
			b.look()
			return err
		}
	}
	if len(fresh) > 0 {
		if err := to.Announce(ctx, b.keys(fresh)); err != nil {
			b.look()
			return err
		}
	}
	b.told, b.to, b.before = now, to, stat
	return nil
}

// look has the next round look, whatever the store says.
func (b *blobIndex) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = true
}

// changed reports whether there may be anything to tell, and the state of the store that says so.
func (b *blobIndex) changed(to locate.Locator) (cas.Stat, bool) {
	stat := b.store.Stat()
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := b.dirty || to != b.to || stat.Blobs != b.before.Blobs || stat.Bytes != b.before.Bytes || stat.Removals != b.before.Removals
	b.dirty = false
	return stat, changed
}

// present is what is to be announced. Roots that are gone are forgotten.
func (b *blobIndex) present() (map[digest.Digest]struct{}, error) {
	large, err := b.store.Large(announcedFrom)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.roots, func(d digest.Digest, _ struct{}) bool { return !b.store.Contains(d) })
	now := maps.Clone(b.roots)
	for _, d := range large {
		now[d] = struct{}{}
	}
	maps.DeleteFunc(now, func(d digest.Digest, _ struct{}) bool { return b.private.Has(d) })
	return now, nil
}

// keys are what the index knows blobs by, in no order that tells anything.
func (b *blobIndex) keys(ds []digest.Digest) []cid.Key {
	keys := make([]cid.Key, len(ds))
	for i, d := range ds {
		keys[i] = b.keyer.Blob(d)
	}
	slices.SortFunc(keys, func(x, y cid.Key) int { return slices.Compare(x[:], y[:]) })
	return keys
}
