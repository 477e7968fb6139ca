package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// store is a blob store in a map. Blobs that are pinned cannot be evicted.
type store struct {
	mu     sync.Mutex // guards all below
	blobs  map[digest.Digest][]byte
	pinned map[digest.Digest]int
	full   bool // takes blobs and forgets them at once
}

func newStore() *store {
	return &store{blobs: map[digest.Digest][]byte{}, pinned: map[digest.Digest]int{}}
}

func (s *store) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([][]byte, len(ds))
	for i, d := range ds {
		out[i] = s.blobs[d]
	}
	return out, nil
}

func (s *store) PutAll(_ context.Context, ds []digest.Digest, data [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range ds {
		if !s.full {
			s.blobs[d] = bytes.Clone(data[i])
		}
	}
	return nil
}

func (s *store) PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return digest.Digest{}, err
	}
	d := fn.Of(data)
	return d, s.PutAll(ctx, []digest.Digest{d}, [][]byte{data})
}

func (s *store) Pin(ds []digest.Digest) (release func(), missing []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var held []digest.Digest
	for _, d := range ds {
		if _, found := s.blobs[d]; found {
			s.pinned[d]++
			held = append(held, d)
		} else {
			missing = append(missing, d)
		}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, d := range held {
			if s.pinned[d]--; s.pinned[d] == 0 {
				delete(s.pinned, d)
			}
		}
	}, missing
}

// evict removes whatever nobody holds, and reports how many blobs are left.
func (s *store) evict() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := range s.blobs {
		if s.pinned[d] == 0 {
			delete(s.blobs, d)
		}
	}
	return len(s.blobs)
}

// shelf is a Registry in memory. hold, when set, stops every Blob until it is closed.
type shelf struct {
	mu       sync.Mutex // guards all below
	parts    map[string][]byte
	tags     map[string]v1.Hash
	down     bool
	hold     chan struct{}
	waiting  chan struct{} // gets a value when a Blob is held
	asked    int           // manifests
	breakOff bool          // blobs end in the middle, as connections do
}

func newShelf() *shelf {
	return &shelf{parts: map[string][]byte{}, tags: map[string]v1.Hash{}, waiting: make(chan struct{}, 100)}
}

func (s *shelf) get(hash v1.Hash) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, fmt.Errorf("%w: nobody listens", ErrUnreachable)
	}
	data, found := s.parts[hash.Hex]
	if !found {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, hash)
	}
	return data, nil
}

func (s *shelf) Manifest(_ context.Context, _ Reference, hash v1.Hash) ([]byte, error) {
	s.mu.Lock()
	s.asked++
	s.mu.Unlock()
	return s.get(hash)
}

func (s *shelf) Blob(ctx context.Context, _ Reference, hash v1.Hash) (io.ReadCloser, error) {
	data, err := s.get(hash)
	if err != nil {
		return nil, err
	}
	if s.hold != nil {
		s.waiting <- struct{}{}
		select {
		case <-s.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var r io.Reader = bytes.NewReader(data)
	if s.breakOff {
		r = io.MultiReader(io.LimitReader(r, int64(len(data)/2)), broken{})
	}
	return io.NopCloser(r), nil
}

// broken is the end of a connection that broke.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (s *shelf) Resolve(_ context.Context, r Reference) (v1.Hash, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hash, found := s.tags[r.Tag]; found && !s.down {
		return hash, nil
	}
	return v1.Hash{}, ErrNotFound
}

// put adds a part and gives its hash.
func (s *shelf) put(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	s.parts[hex.EncodeToString(sum[:])] = data
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// entry is a file of a test's layer: a tar header, with content for regular files.
type content struct {
	tar.Header
	data string
}

func file(name, data string) content {
	return content{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}, data}
}

func program(name, data string) content {
	c := file(name, data)
	c.Mode = 0o4755
	return c
}

func dir(name string) content {
	return content{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func link(name, target string) content {
	return content{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}, ""}
}

func hard(name, target string) content {
	return content{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}, ""}
}

// archive packs a layer, not compressed.
func archive(t testing.TB, entries ...content) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zipped(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(data) // never fails
	_ = w.Close()
	return out.Bytes()
}

// add puts an image of gzip layers on the shelf and gives its reference.
func (s *shelf) add(t testing.TB, config v1.Config, layers ...[]byte) string {
	t.Helper()
	var packed [][]byte
	for _, l := range layers {
		packed = append(packed, zipped(l))
	}
	return s.addPacked(t, v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, Config: config}, layers, packed)
}

// addPacked puts an image on the shelf whose layers are packed as they are.
func (s *shelf) addPacked(t testing.TB, config v1.ConfigFile, plain, packed [][]byte) string {
	t.Helper()
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for i := range plain {
		sum := sha256.Sum256(plain[i])
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])})
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.OCILayer, Size: int64(len(packed[i])), Digest: s.put(packed[i])})
	}
	data := marshal(t, config)
	m.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(data)), Digest: s.put(data)}
	return "oci:/images@" + s.put(marshal(t, m)).String()
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
