package reapi

import (
	"bytes"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

func TestFindMissingRefusesMalformed(t *testing.T) {
	e := start(t)
	for what, q := range map[string]*repb.FindMissingBlobsRequest{
		"hash":     {BlobDigests: []*repb.Digest{abc.Proto(), {Hash: "abc", SizeBytes: 3}}},
		"size":     {BlobDigests: []*repb.Digest{{Hash: abcHash, SizeBytes: -3}}},
		"case":     {BlobDigests: []*repb.Digest{{Hash: strings.ToUpper(abcHash), SizeBytes: 3}}},
		"function": {DigestFunction: repb.DigestFunction_MD5},
		"instance": {InstanceName: "a/blobs"},
	} {
		_, err := e.cas.FindMissingBlobs(t.Context(), q)
		t.Log(what)
		wantCode(t, err, codes.InvalidArgument)
	}
}

func TestFindMissingKnowsTheEmptyBlobAndSizes(t *testing.T) {
	e := start(t)
	e.put(t, digest.SHA256, []byte("abc"))
	for _, fn := range digest.Functions() {
		r, err := e.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{
			BlobDigests: []*repb.Digest{fn.Empty().Proto()}, DigestFunction: fn.Proto(),
		})
		if err != nil || len(r.MissingBlobDigests) != 0 {
			t.Errorf("%s: %v, %v", fn, r, err)
		}
	}
	r, err := e.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: []*repb.Digest{{Hash: abcHash, SizeBytes: 4}, abc.Proto()}})
	if err != nil || len(r.MissingBlobDigests) != 1 || r.MissingBlobDigests[0].SizeBytes != 4 {
		t.Errorf("another size: %v, %v", r, err)
	}
	// The same hash under another function is another blob: never inferred from the length alone.
	r, err = e.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: []*repb.Digest{abc.Proto()}, DigestFunction: repb.DigestFunction_BLAKE3})
	if err != nil || len(r.MissingBlobDigests) != 1 {
		t.Errorf("another function: %v, %v", r, err)
	}
}

func TestBatchUpdateItemsAreIndependent(t *testing.T) {
	e := start(t)
	good, zipped, flat := content(2000, 1), content(2000, 2), content(2000, 3)
	of := digest.SHA256.Of
	q := &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{
		{Digest: of(good).Proto(), Data: good},
		{Digest: of(zipped).Proto(), Data: pack(t, Zstd, zipped), Compressor: repb.Compressor_ZSTD},
		{Digest: of(flat).Proto(), Data: pack(t, Deflate, flat), Compressor: repb.Compressor_DEFLATE},
		{Digest: digest.SHA256.Empty().Proto()},
		{Digest: abc.Proto(), Data: []byte("abd")},
		{Digest: &repb.Digest{Hash: abcHash, SizeBytes: 4}, Data: []byte("abc")},
		{Digest: &repb.Digest{Hash: "nonsense", SizeBytes: 4}, Data: []byte("abc")},
		{Data: []byte("abc")},
		{Digest: abc.Proto(), Data: []byte("not zstd"), Compressor: repb.Compressor_ZSTD},
		{Digest: abc.Proto(), Data: pack(t, Zstd, []byte("abcd")), Compressor: repb.Compressor_ZSTD},
		{Digest: abc.Proto(), Data: pack(t, Deflate, []byte("abcd")), Compressor: repb.Compressor_DEFLATE},
		{Digest: abc.Proto(), Data: append(pack(t, Deflate, []byte("abc")), 0), Compressor: repb.Compressor_DEFLATE},
		{Digest: abc.Proto(), Data: []byte("abc"), Compressor: repb.Compressor_BROTLI},
	}}
	r, err := e.cas.BatchUpdateBlobs(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for i, item := range r.Responses {
		want := codes.InvalidArgument
		if i < 4 {
			want = codes.OK
		}
		if codes.Code(item.Status.Code) != want {
			t.Errorf("item %d: %v, want %s", i, item.Status, want)
		}
		if wire := q.Requests[i].Digest; wire != nil && !proto.Equal(item.Digest, wire) {
			t.Errorf("item %d answers for %v", i, item.Digest)
		}
	}
	for _, data := range [][]byte{good, zipped, flat} {
		if !e.store.Contains(of(data)) {
			t.Errorf("blob %s is not stored", of(data).Short())
		}
	}
	if e.store.Contains(abc) {
		t.Error("a refused blob is stored")
	}
}

func TestBatchLimits(t *testing.T) {
	e := start(t, func(c *Config) { c.Limits.MaxBatch = 1000 })
	half := content(501, 1)
	other := content(501, 2)
	d, o := e.put(t, digest.SHA256, half), e.put(t, digest.SHA256, other)
	_, err := e.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{
		{Digest: d.Proto(), Data: half}, {Digest: o.Proto(), Data: other},
	}})
	wantCode(t, err, codes.InvalidArgument)
	_, err = e.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d.Proto(), o.Proto()}})
	wantCode(t, err, codes.InvalidArgument)
	// What counts is the size of the blobs, however small they were compressed.
	bomb := make([]byte, 2000)
	_, err = e.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{
		{Digest: digest.SHA256.Of(bomb).Proto(), Data: pack(t, Zstd, bomb), Compressor: repb.Compressor_ZSTD},
	}})
	wantCode(t, err, codes.InvalidArgument)
	r, err := e.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d.Proto()}})
	if err != nil || !bytes.Equal(r.Responses[0].Data, half) {
		t.Errorf("within the limit: %v", err)
	}
}

// TestFullBatches shows that the advertised size is true both ways with a client's default limits.
func TestFullBatches(t *testing.T) {
	e := start(t)
	q, want := &repb.BatchUpdateBlobsRequest{}, &repb.BatchReadBlobsRequest{}
	for i := range 512 {
		data := content(DefaultMaxBatch/512, byte(i))
		copy(data, []byte{byte(i), byte(i >> 8)})
		d := digest.SHA256.Of(data).Proto()
		q.Requests = append(q.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: d, Data: data})
		want.Digests = append(want.Digests, d)
	}
	if _, err := e.cas.BatchUpdateBlobs(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	r, err := e.cas.BatchReadBlobs(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	for i, item := range r.Responses {
		if item.Status.Code != 0 || !bytes.Equal(item.Data, q.Requests[i].Data) {
			t.Fatalf("item %d: %v", i, item.Status)
		}
	}
}

// TestReadsThatDoNotFitAMessage shows that many small blobs, within the advertised limit by
// themselves, do not make a message that a client refuses.
func TestReadsThatDoNotFitAMessage(t *testing.T) {
	e := start(t)
	read := func(n, size int) (*repb.BatchReadBlobsResponse, error) {
		one := e.put(t, digest.SHA256, content(size, 1)).Proto()
		q := &repb.BatchReadBlobsRequest{}
		for range n {
			q.Digests = append(q.Digests, one)
		}
		return e.cas.BatchReadBlobs(t.Context(), q)
	}
	r, err := read(4_000, 1_000)
	if err != nil {
		t.Fatal(err)
	}
	fit := 0
	for i, item := range r.Responses {
		switch codes.Code(item.Status.Code) {
		case codes.OK:
			fit++
		case codes.ResourceExhausted:
		default:
			t.Fatalf("item %d: %v", i, item.Status)
		}
	}
	if fit < 3_500 || fit == len(r.Responses) {
		t.Errorf("%d of %d blobs fit", fit, len(r.Responses))
	}
	_, err = read(60_000, 1)
	wantCode(t, err, codes.InvalidArgument)
}

func TestFullStore(t *testing.T) {
	e := start(t)
	stored := e.put(t, digest.SHA256, []byte("stored"))
	e.store.FailWith(cas.ErrFull)
	r, err := e.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{
		{Digest: abc.Proto(), Data: []byte("abc")}, {Digest: stored.Proto(), Data: []byte("stored")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := codes.Code(r.Responses[0].Status.Code); got != codes.ResourceExhausted {
		t.Errorf("new blob: %s", got)
	}
	if got := codes.Code(r.Responses[1].Status.Code); got != codes.OK {
		t.Errorf("known blob: %s", got)
	}
	_, err = e.write(t, uploadName(abc, Identity), []byte("abc"), 3)
	wantCode(t, err, codes.ResourceExhausted)
}

func TestBatchRead(t *testing.T) {
	e := start(t)
	big := content(100_000, 1)
	d := e.put(t, digest.SHA256, big)
	q := &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{
		{Hash: "bad"}, d.Proto(), abc.Proto(), digest.SHA256.Empty().Proto(), {Hash: abcHash, SizeBytes: -1},
	}}
	for _, acceptable := range [][]repb.Compressor_Value{nil, {repb.Compressor_ZSTD}, {repb.Compressor_BROTLI}} {
		q.AcceptableCompressors = acceptable
		r, err := e.cas.BatchReadBlobs(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []codes.Code{codes.InvalidArgument, codes.OK, codes.NotFound, codes.OK, codes.InvalidArgument} {
			if item := r.Responses[i]; codes.Code(item.Status.Code) != want || !proto.Equal(item.Digest, q.Digests[i]) {
				t.Errorf("item %d: %v for %v, want %s", i, item.Status, item.Digest, want)
			}
		}
		data := r.Responses[1].Data
		if r.Responses[1].Compressor == repb.Compressor_ZSTD {
			if len(acceptable) == 0 {
				t.Error("compressed for a client that does not ask for it")
			}
			data = unpack(t, Zstd, data)
		}
		if !bytes.Equal(data, big) {
			t.Error("other bytes came back")
		}
	}
}

func TestDamagedBlobIsLost(t *testing.T) {
	if got := itemStatus(cas.ErrCorrupt).Code; codes.Code(got) != codes.NotFound {
		t.Errorf("read: %s", codes.Code(got))
	}
	if got := itemStatus(uploadError(cas.ErrCorrupt)).Code; codes.Code(got) != codes.InvalidArgument {
		t.Errorf("upload: %s", codes.Code(got))
	}
}
