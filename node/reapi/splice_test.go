package reapi

import (
	"bytes"
	"errors"
	"io"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// mapping gives what GetChunkMapping streams.
func (e *endpoint) mapping(t *testing.T, q *repb.GetChunkMappingRequest) ([]*repb.Digest, error) {
	t.Helper()
	stream, err := e.cas.GetChunkMapping(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var chunks []*repb.Digest
	for first := true; ; first = false {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return chunks, nil
		}
		if err != nil {
			return nil, err
		}
		if first != (r.ChunkingFunction == repb.ChunkingFunction_FAST_CDC_2020) {
			t.Errorf("chunking function %s", r.ChunkingFunction)
		}
		chunks = append(chunks, r.ChunkDigests...)
	}
}

// register sends chunks one by one to RegisterChunkMapping.
func (e *endpoint) register(t *testing.T, first *repb.RegisterChunkMappingRequest, chunks []*repb.Digest) (*repb.RegisterChunkMappingResponse, error) {
	t.Helper()
	stream, err := e.cas.RegisterChunkMapping(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if first != nil {
		if err := stream.Send(first); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range chunks {
		// Later values of all but the chunks are ignored.
		if stream.Send(&repb.RegisterChunkMappingRequest{InstanceName: "blobs", BlobDigest: c, ChunkDigests: []*repb.Digest{c}}) != nil {
			break
		}
	}
	return stream.CloseAndRecv()
}

func TestSplitAndSplice(t *testing.T) {
	for _, fn := range digest.Functions() {
		e := start(t)
		data := content(50_000, 1) // some 50 chunks of 1 KiB on average
		d := e.put(t, fn, data)
		r, err := e.cas.SplitBlob(t.Context(), &repb.SplitBlobRequest{BlobDigest: d.Proto(), DigestFunction: fn.Proto()})
		if err != nil || len(r.ChunkDigests) < 10 || r.ChunkingFunction != repb.ChunkingFunction_FAST_CDC_2020 {
			t.Fatalf("%s: %d chunks, %v", fn, len(r.GetChunkDigests()), err)
		}
		streamed, err := e.mapping(t, &repb.GetChunkMappingRequest{BlobDigest: d.Proto(), DigestFunction: fn.Proto()})
		if err != nil || len(streamed) != len(r.ChunkDigests) {
			t.Fatalf("%s streamed: %d chunks, %v", fn, len(streamed), err)
		}
		var joined []byte
		for i, c := range r.ChunkDigests {
			if c.Hash != streamed[i].Hash {
				t.Errorf("chunk %d differs", i)
			}
			chunk, err := digest.FromProto(fn, c)
			if err != nil {
				t.Fatal(err)
			}
			b, err := e.store.Get(t.Context(), chunk)
			if err != nil {
				t.Fatal(err)
			}
			joined = append(joined, b...)
		}
		if !bytes.Equal(joined, data) {
			t.Error("the chunks are not the blob")
		}
		e.store.Lose(d)
		if _, err := e.cas.SpliceBlob(t.Context(), &repb.SpliceBlobRequest{BlobDigest: d.Proto(), ChunkDigests: streamed, DigestFunction: fn.Proto()}); err != nil || !e.store.Contains(d) {
			t.Errorf("%s spliced: %v", fn, err)
		}
		e.store.Lose(d)
		if r, err := e.register(t, &repb.RegisterChunkMappingRequest{BlobDigest: d.Proto(), DigestFunction: fn.Proto()}, streamed); err != nil || !e.store.Contains(d) || r.BlobDigest.Hash != d.Hex() {
			t.Errorf("%s registered: %v, %v", fn, r, err)
		}
	}
}

func TestSpliceRefuses(t *testing.T) {
	e := start(t, func(c *Config) { c.Limits.MaxChunks, c.Limits.MaxBlob = 3, 1000 })
	a, b := e.put(t, digest.SHA256, []byte("a")), e.put(t, digest.SHA256, []byte("b"))
	ab, one := digest.SHA256.Of([]byte("ab")), digest.New(digest.SHA256, abc.Hash(), 1)
	list := func(ds ...digest.Digest) []*repb.Digest { return digest.Protos(ds) }
	for _, c := range []struct {
		what   string
		blob   *repb.Digest
		chunks []*repb.Digest
		want   codes.Code
	}{
		{"order", ab.Proto(), list(b, a), codes.InvalidArgument},
		{"too few", ab.Proto(), list(a), codes.InvalidArgument},
		{"too many", ab.Proto(), list(a, b, a), codes.InvalidArgument},
		{"none", ab.Proto(), nil, codes.InvalidArgument},
		{"missing chunk", ab.Proto(), list(a, one), codes.NotFound},
		{"malformed chunk", ab.Proto(), []*repb.Digest{{Hash: "x"}}, codes.InvalidArgument},
		{"malformed blob", &repb.Digest{Hash: "x"}, list(a), codes.InvalidArgument},
		{"no blob", nil, list(a), codes.InvalidArgument},
		{"more chunks than allowed", digest.New(digest.SHA256, abc.Hash(), 4).Proto(), list(a, a, a, a), codes.InvalidArgument},
		{"larger than allowed", digest.New(digest.SHA256, abc.Hash(), 1001).Proto(), list(a), codes.InvalidArgument},
	} {
		_, err := e.cas.SpliceBlob(t.Context(), &repb.SpliceBlobRequest{BlobDigest: c.blob, ChunkDigests: c.chunks})
		t.Log(c.what)
		wantCode(t, err, c.want)
		_, err = e.register(t, &repb.RegisterChunkMappingRequest{BlobDigest: c.blob, DigestFunction: repb.DigestFunction_SHA256}, c.chunks)
		wantCode(t, err, c.want)
	}
	_, err := e.register(t, nil, nil)
	wantCode(t, err, codes.InvalidArgument)
	e.store.FailWith(cas.ErrFull)
	_, err = e.cas.SpliceBlob(t.Context(), &repb.SpliceBlobRequest{BlobDigest: ab.Proto(), ChunkDigests: list(a, b)})
	wantCode(t, err, codes.ResourceExhausted)
	if e.store.Contains(ab) {
		t.Error("a refused blob is stored")
	}
}

func TestSplitRefuses(t *testing.T) {
	e := start(t)
	for want, q := range map[codes.Code]*repb.SplitBlobRequest{
		codes.NotFound:        {BlobDigest: abc.Proto()},
		codes.InvalidArgument: {BlobDigest: &repb.Digest{Hash: "x"}},
	} {
		_, err := e.cas.SplitBlob(t.Context(), q)
		wantCode(t, err, want)
		_, err = e.mapping(t, &repb.GetChunkMappingRequest{BlobDigest: q.BlobDigest})
		wantCode(t, err, want)
	}
}
