package tree

import (
	"context"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// store is a Getter in memory that counts its calls.
type store struct {
	fn      digest.Function
	blobs   map[digest.Digest][]byte
	batches int
	asked   map[digest.Digest]int
	fail    error
	lie     func(contents [][]byte) [][]byte
}

func newStore(fn digest.Function) *store {
	return &store{fn: fn, blobs: map[digest.Digest][]byte{}, asked: map[digest.Digest]int{}}
}

func (s *store) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	s.batches++
	if s.fail != nil {
		return nil, s.fail
	}
	contents := make([][]byte, len(ds))
	for i, d := range ds {
		s.asked[d]++
		contents[i] = s.blobs[d]
	}
	if s.lie != nil {
		contents = s.lie(contents)
	}
	return contents, nil
}

func (s *store) put(data []byte) digest.Digest {
	d := s.fn.Of(data)
	s.blobs[d] = data
	return d
}

func (s *store) message(t testing.TB, m proto.Message) digest.Digest {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return s.put(data)
}

func fileNode(name, content string) *repb.FileNode {
	return &repb.FileNode{Name: name, Digest: digest.SHA256.Of([]byte(content)).Proto()}
}

func directoryNode(name string, d digest.Digest) *repb.DirectoryNode {
	return &repb.DirectoryNode{Name: name, Digest: d.Proto()}
}

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
