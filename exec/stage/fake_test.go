package stage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// fakeBlobs keeps blobs in memory and, like the real store, links the large ones from files.
type fakeBlobs struct {
	dir string

	mu           sync.Mutex
	data         map[digest.Digest][]byte
	pinned       map[digest.Digest]int
	materialized int
	batches      int
	fail         func(d digest.Digest) error // asked before each Materialize and for each blob of GetBatch
}

func newFakeBlobs(t testing.TB) *fakeBlobs {
	return &fakeBlobs{dir: t.TempDir(), data: map[digest.Digest][]byte{}, pinned: map[digest.Digest]int{}}
}

func (b *fakeBlobs) put(data []byte) digest.Digest {
	d := digest.SHA256.Of(data)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data[d] = data
	return d
}

func (b *fakeBlobs) remove(d digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.data, d)
}

func (b *fakeBlobs) Pin(ds []digest.Digest) (func(), []digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var missing, present []digest.Digest
	for _, d := range ds {
		if _, ok := b.data[d]; !ok && !d.IsEmpty() {
			missing = append(missing, d)
			continue
		}
		present = append(present, d)
		b.pinned[d]++
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, d := range present {
			if b.pinned[d]--; b.pinned[d] == 0 {
				delete(b.pinned, d)
			}
		}
	}, missing
}

func (b *fakeBlobs) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batches++
	out := make([][]byte, len(ds))
	for i, d := range ds {
		if b.fail != nil {
			if err := b.fail(d); err != nil {
				return nil, err
			}
		}
		out[i] = b.data[d]
		if d.IsEmpty() {
			out[i] = []byte{}
		}
	}
	return out, nil
}

func (b *fakeBlobs) Materialize(_ context.Context, d digest.Digest, path string, executable bool) error {
	b.mu.Lock()
	b.materialized++
	fail, data, found := b.fail, b.data[d], false
	_, found = b.data[d]
	b.mu.Unlock()
	if fail != nil {
		if err := fail(d); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("materialize %s: not found", d)
	}
	mode := os.FileMode(0o444)
	if executable {
		mode = 0o555
	}
	own := filepath.Join(b.dir, fmt.Sprintf("%s-%o", d.Hex(), mode))
	if _, err := os.Stat(own); err != nil {
		if err := os.WriteFile(own, data, mode); err != nil {
			return err
		}
	}
	return os.Link(own, path)
}

// node is an entry of a tree under construction.
type node struct {
	content    string
	executable bool
	link       string // target of a symbolic link
	props      *repb.NodeProperties
	dir        bool // a directory, for props or because it is empty
}

// tree stores the files and Directory messages of nodes, by path, and loads them.
func (b *fakeBlobs) tree(t testing.TB, nodes map[string]node) *tree.Tree {
	t.Helper()
	tr, err := tree.Load(t.Context(), b, b.directory(t, "", nodes), tree.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func (b *fakeBlobs) directory(t testing.TB, at string, nodes map[string]node) digest.Digest {
	msg := &repb.Directory{NodeProperties: nodes[strings.TrimSuffix(at, "/")].props}
	groups := map[string]map[string]node{} // subdirectory to the nodes inside
	for p, n := range nodes {
		rest, inside := strings.CutPrefix(p, at)
		if !inside || rest == "" {
			continue
		}
		first, _, deeper := strings.Cut(rest, "/")
		if deeper || n.dir {
			if groups[first] == nil {
				groups[first] = map[string]node{}
			}
			groups[first][p] = n
			continue
		}
		switch {
		case n.link != "":
			msg.Symlinks = append(msg.Symlinks, &repb.SymlinkNode{Name: first, Target: n.link, NodeProperties: n.props})
		default:
			d := b.put([]byte(n.content))
			msg.Files = append(msg.Files, &repb.FileNode{Name: first, Digest: d.Proto(), IsExecutable: n.executable, NodeProperties: n.props})
		}
	}
	for name, inside := range groups {
		d := b.directory(t, at+name+"/", inside)
		msg.Directories = append(msg.Directories, &repb.DirectoryNode{Name: name, Digest: d.Proto()})
	}
	sort.Slice(msg.Files, func(i, j int) bool { return msg.Files[i].Name < msg.Files[j].Name })
	sort.Slice(msg.Symlinks, func(i, j int) bool { return msg.Symlinks[i].Name < msg.Symlinks[j].Name })
	sort.Slice(msg.Directories, func(i, j int) bool { return msg.Directories[i].Name < msg.Directories[j].Name })
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	return b.put(data)
}
