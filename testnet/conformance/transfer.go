package conformance

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/protobuf/proto"
)

// piece is how many bytes one ByteStream message of the suite carries.
const piece = 64 << 10

// inst puts the instance name before a resource name.
func (s *Subject) inst(rest string) string {
	if s.Instance == "" {
		return rest
	}
	return s.Instance + "/" + rest
}

// path is {digest_function/}{hash}/{size}.
func (s *Subject) path(d *repb.Digest) string {
	return fmt.Sprintf("%s%s/%d", s.Function.Segment(), d.GetHash(), d.GetSizeBytes())
}

// ReadName is the resource name of a plain read.
func (s *Subject) ReadName(d *repb.Digest) string { return s.inst("blobs/" + s.path(d)) }

// ZstdReadName is the resource name of a read compressed with zstd.
func (s *Subject) ZstdReadName(d *repb.Digest) string {
	return s.inst("compressed-blobs/zstd/" + s.path(d))
}

// WriteName is the resource name of a new plain upload.
func (s *Subject) WriteName(d *repb.Digest) string {
	return s.inst("uploads/" + uuid.NewString() + "/blobs/" + s.path(d))
}

// ZstdWriteName is the resource name of a new upload compressed with zstd.
func (s *Subject) ZstdWriteName(d *repb.Digest) string {
	return s.inst("uploads/" + uuid.NewString() + "/compressed-blobs/zstd/" + s.path(d))
}

// Read reads a resource from offset, at most limit bytes (0: all).
func (s *Subject) Read(ctx context.Context, name string, offset, limit int64) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.Bytes.Read(ctx, &bspb.ReadRequest{ResourceName: name, ReadOffset: offset, ReadLimit: limit})
	if err != nil {
		return nil, err
	}
	var data []byte
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return data, err
		}
		data = append(data, resp.Data...)
	}
}

// pieces cuts data into the messages of one whole upload that starts at offset 0.
func pieces(name string, data []byte) []*bspb.WriteRequest {
	reqs := []*bspb.WriteRequest{{ResourceName: name}}
	for off := 0; off < len(data); off += piece {
		end := min(off+piece, len(data))
		if off > 0 {
			reqs = append(reqs, &bspb.WriteRequest{WriteOffset: int64(off)})
		}
		reqs[len(reqs)-1].Data = data[off:end]
	}
	reqs[len(reqs)-1].FinishWrite = true
	return reqs
}

// Write uploads data under name and gives the committed size.
func (s *Subject) Write(ctx context.Context, name string, data []byte) (int64, error) {
	return s.Send(ctx, pieces(name, data)...)
}

// Send makes one Write call of the given messages.
func (s *Subject) Send(ctx context.Context, reqs ...*bspb.WriteRequest) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.Bytes.Write(ctx)
	if err != nil {
		return 0, err
	}
	for _, r := range reqs {
		if err := stream.Send(r); err != nil {
			break // the server has answered: its answer follows
		}
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetCommittedSize(), err
}

// Put uploads blobs in a batch that must succeed.
func (s *Subject) Put(ctx context.Context, t T, blobs ...[]byte) []*repb.Digest {
	t.Helper()
	req := &repb.BatchUpdateBlobsRequest{InstanceName: s.Instance, DigestFunction: s.Function.Proto()}
	var ds []*repb.Digest
	for _, b := range blobs {
		d := s.Digest(b)
		ds = append(ds, d)
		if d.SizeBytes > 1<<20 {
			if _, err := s.Write(ctx, s.WriteName(d), b); err != nil {
				t.Fatalf("upload %s by ByteStream.Write: %v", show(d), err)
			}
			continue
		}
		req.Requests = append(req.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: d, Data: b})
	}
	if len(req.Requests) == 0 {
		return ds
	}
	resp, err := s.CAS.BatchUpdateBlobs(ctx, req)
	if err != nil {
		t.Fatalf("BatchUpdateBlobs of %d blobs: %v", len(req.Requests), err)
	}
	if len(resp.Responses) != len(req.Requests) {
		t.Fatalf("BatchUpdateBlobs of %d blobs gave %d responses", len(req.Requests), len(resp.Responses))
	}
	for _, r := range resp.Responses {
		if r.GetStatus().GetCode() != 0 {
			t.Fatalf("BatchUpdateBlobs, item %s: %v", show(r.Digest), r.Status)
		}
	}
	return ds
}

// PutMessage uploads a message in its wire form.
func (s *Subject) PutMessage(ctx context.Context, t T, m proto.Message) *repb.Digest {
	t.Helper()
	return s.Put(ctx, t, wire(t, m))[0]
}

// wire is the canonical encoding of m.
func wire(t T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatalf("encode %T: %v", m, err)
	}
	return b
}

// Missing asks FindMissingBlobs, which must succeed.
func (s *Subject) Missing(ctx context.Context, t T, ds ...*repb.Digest) []*repb.Digest {
	t.Helper()
	resp, err := s.CAS.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{
		InstanceName: s.Instance, BlobDigests: ds, DigestFunction: s.Function.Proto(),
	})
	if err != nil {
		t.Fatalf("FindMissingBlobs of %d digests: %v", len(ds), err)
	}
	return resp.MissingBlobDigests
}

// WantReadable fails unless ByteStream.Read gives exactly data.
func (s *Subject) WantReadable(ctx context.Context, t T, data []byte) {
	t.Helper()
	d := s.Digest(data)
	got, err := s.Read(ctx, s.ReadName(d), 0, 0)
	if err != nil {
		t.Errorf("ByteStream.Read of %s: %v", s.ReadName(d), err)
	} else if !bytes.Equal(got, data) {
		t.Errorf("ByteStream.Read of %s gave %d bytes that are not the blob's", s.ReadName(d), len(got))
	}
}

// Get reads the blob d, which must exist and match its digest.
func (s *Subject) Get(ctx context.Context, t T, d *repb.Digest) []byte {
	t.Helper()
	if d == nil {
		t.Fatalf("a digest is missing where a blob should be referred to")
	}
	data, err := s.Read(ctx, s.ReadName(d), 0, 0)
	if err != nil {
		t.Fatalf("ByteStream.Read of %s: %v", s.ReadName(d), err)
	}
	if !proto.Equal(s.Digest(data), d) {
		t.Fatalf("ByteStream.Read of %s gave bytes with digest %s", s.ReadName(d), show(s.Digest(data)))
	}
	return data
}

// show is a digest for messages: hash/size.
func show(d *repb.Digest) string { return fmt.Sprintf("%s/%d", d.GetHash(), d.GetSizeBytes()) }

// showAll is several digests for messages.
func showAll(ds []*repb.Digest) string {
	var names []string
	for _, d := range ds {
		names = append(names, show(d))
	}
	return "[" + strings.Join(names, " ") + "]"
}

// compress makes one zstd frame of data.
func compress(t T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatalf("make a zstd encoder: %v", err)
	}
	defer func() { _ = w.Close() }() // nothing was written through it
	return w.EncodeAll(data, nil)
}

// decompress undoes compress; the frames may be several.
func decompress(t T, data []byte) []byte {
	t.Helper()
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		t.Fatalf("make a zstd decoder: %v", err)
	}
	defer r.Close()
	plain, err := r.DecodeAll(data, nil)
	if err != nil {
		t.Fatalf("the server's zstd stream of %d bytes does not decode: %v", len(data), err)
	}
	return plain
}

// deflate packs data as RFC 1951 says, without headers.
func deflate(t T, data []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.DefaultCompression)
	if err != nil {
		t.Fatalf("make a deflate encoder: %v", err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatalf("deflate: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatalf("deflate: %v", err)
	}
	return packed.Bytes()
}

// inflate undoes deflate.
func inflate(t T, data []byte) []byte {
	t.Helper()
	plain, err := io.ReadAll(flate.NewReader(bytes.NewReader(data)))
	if err != nil {
		t.Fatalf("the server's deflate stream of %d bytes does not decode: %v", len(data), err)
	}
	return plain
}

func newUUID() string { return uuid.NewString() }
