package reapi

import (
	"bytes"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// split cuts b into buffers of n bytes, the way a message arrives in frames.
func split(b []byte, n int) mem.BufferSlice {
	var s mem.BufferSlice
	for ; len(b) > n; b = b[n:] {
		s = append(s, mem.SliceBuffer(b[:n]))
	}
	return append(s, mem.SliceBuffer(b))
}

// seeds adds messages that every decoder's fuzzing begins with.
func seeds(f *testing.F, messages ...proto.Message) {
	f.Helper()
	f.Add([]byte{}, uint8(1))
	f.Add([]byte("\x0a\x02\xff\xfe"), uint8(1))             // a string that is not UTF-8
	f.Add([]byte("\x1b\x1c"), uint8(1))                     // a group
	f.Add([]byte("\x00\x00"), uint8(1))                     // field number 0
	f.Add([]byte("\x80\x80\x80\x80\x30\x00"), uint8(3))     // field number 1<<31
	f.Add([]byte("\x80\x80\x80\x80\x10\x00"), uint8(3))     // field number 1<<29
	f.Add([]byte("\x52\x80\x80\x80\x80\x10abc"), uint8(2))  // a length beyond the end
	f.Add([]byte("\x12\x04\x0a\x02zz\x12\x00"), uint8(200)) // a malformed digest, an empty one
	for _, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(1))
		f.Add(b, uint8(7))
		f.Add(append(b, b...), uint8(100))
	}
}

// same fails the test unless ours accepts what protobuf accepts; it reports whether both accept.
func same(t *testing.T, ours, theirs error) bool {
	t.Helper()
	if (ours == nil) != (theirs == nil) {
		t.Fatalf("ours: %v, protobuf: %v", ours, theirs)
	}
	return ours == nil
}

// FuzzWriteRequest shows that writeRequest decodes as the generated message does, in whatever
// pieces it arrives.
func FuzzWriteRequest(f *testing.F) {
	seeds(f, &bspb.WriteRequest{ResourceName: "uploads/u/blobs", WriteOffset: -5, FinishWrite: true, Data: []byte("data")})
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var ours writeRequest
		var theirs bspb.WriteRequest
		if !same(t, ours.decode(split(b, max(1, int(step))), nil), (&codec{pool: &buffer.Pool{}}).Unmarshal(split(b, len(b)+1), &theirs)) {
			return
		}
		if ours.name != theirs.ResourceName || ours.offset != theirs.WriteOffset || ours.finish != theirs.FinishWrite ||
			!bytes.Equal(bytes.Join(ours.data, nil), theirs.Data) || ours.size() != int64(len(theirs.Data)) {
			t.Errorf("%+v, protobuf %v", ours, &theirs)
		}
		for _, piece := range ours.data {
			if len(piece) == 0 {
				t.Error("an empty piece")
			}
		}
	})
}

// wantDigests compares decoded digests with generated ones.
func wantDigests(t *testing.T, r *digestsRequest, want []*repb.Digest, fv repb.DigestFunction_Value) {
	t.Helper()
	if len(r.digests) != len(want) || r.function != fv {
		t.Fatalf("%d digests of function %v, protobuf %d of %v", len(r.digests), r.function, len(want), fv)
	}
	fn, err := digest.FunctionFromProto(fv)
	if err != nil {
		fn = digest.SHA256 // the call is refused for its function
	}
	bad := 0
	for i, w := range want {
		d, err := digest.FromProto(fn, w)
		if r.digests[i] != d {
			t.Errorf("digest %d is %v, protobuf %v", i, r.digests[i], w)
		}
		if err != nil {
			if b := r.bad[bad]; b.index != i || b.wire.Hash != w.GetHash() || b.wire.SizeBytes != w.GetSizeBytes() {
				t.Errorf("malformed digest %d: %+v, protobuf %v", i, r.bad[bad], w)
			}
			bad++
		}
	}
	if bad != len(r.bad) {
		t.Errorf("%d malformed digests, want %d", len(r.bad), bad)
	}
}

// FuzzFindMissingBlobsRequest shows that digestsRequest decodes as the generated message does.
func FuzzFindMissingBlobsRequest(f *testing.F) {
	seeds(f, &repb.FindMissingBlobsRequest{
		InstanceName: "i", BlobDigests: []*repb.Digest{abc.Proto(), {}, {Hash: "é", SizeBytes: -1}}, DigestFunction: repb.DigestFunction_BLAKE3,
	})
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var theirs repb.FindMissingBlobsRequest
		ours := &digestsRequest{}
		ours.reset(findFields)
		if same(t, ours.decode(split(b, max(1, int(step))), &buffer.Pool{}), proto.Unmarshal(b, &theirs)) {
			if ours.instance != theirs.InstanceName {
				t.Errorf("instance %q, protobuf %q", ours.instance, theirs.InstanceName)
			}
			wantDigests(t, ours, theirs.BlobDigests, theirs.DigestFunction)
		}
	})
}

// FuzzBatchReadBlobsRequest shows the same with the fields of the other message.
func FuzzBatchReadBlobsRequest(f *testing.F) {
	seeds(f, &repb.BatchReadBlobsRequest{
		InstanceName: "i", Digests: []*repb.Digest{abc.Proto(), {}}, DigestFunction: repb.DigestFunction_SHA256,
		AcceptableCompressors: []repb.Compressor_Value{repb.Compressor_ZSTD, 77},
	})
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var theirs repb.BatchReadBlobsRequest
		ours := &digestsRequest{}
		ours.reset(readFields)
		if !same(t, ours.decode(split(b, max(1, int(step))), &buffer.Pool{}), proto.Unmarshal(b, &theirs)) {
			return
		}
		wantDigests(t, ours, theirs.Digests, theirs.DigestFunction)
		if len(ours.compressors) != len(theirs.AcceptableCompressors) {
			t.Fatalf("compressors %v, protobuf %v", ours.compressors, theirs.AcceptableCompressors)
		}
		for i, c := range ours.compressors {
			if c != theirs.AcceptableCompressors[i] {
				t.Errorf("compressor %v, protobuf %v", c, theirs.AcceptableCompressors[i])
			}
		}
	})
}

// FuzzBatchUpdateBlobsRequest shows that updateRequest decodes as the generated message does.
func FuzzBatchUpdateBlobsRequest(f *testing.F) {
	seeds(f, &repb.BatchUpdateBlobsRequest{
		InstanceName: "i", DigestFunction: repb.DigestFunction_SHA256,
		Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: abc.Proto(), Data: []byte("abc"), Compressor: repb.Compressor_ZSTD}, {}},
	})
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var ours updateRequest
		var theirs repb.BatchUpdateBlobsRequest
		if !same(t, ours.decode(split(b, max(1, int(step))), &buffer.Pool{}), proto.Unmarshal(b, &theirs)) {
			return
		}
		if ours.instance != theirs.InstanceName || ours.function != theirs.DigestFunction || len(ours.items) != len(theirs.Requests) {
			t.Fatalf("%+v, protobuf %v", ours, &theirs)
		}
		for i, w := range theirs.Requests {
			o := ours.items[i]
			if string(o.digest.hash) != w.GetDigest().GetHash() || o.digest.size != w.GetDigest().GetSizeBytes() ||
				!bytes.Equal(o.data, w.Data) || o.compressor != w.Compressor {
				t.Errorf("item %d is %+v, protobuf %v", i, o, w)
			}
		}
		ours.release()
	})
}

// encoded gives what e writes, read back by protobuf into m.
func encoded[M proto.Message](t *testing.T, e encoder, m M) M {
	t.Helper()
	wire, err := e.encode(&buffer.Pool{})
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Free()
	if err := proto.Unmarshal(wire.Materialize(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEncodersWriteWhatProtobufReads(t *testing.T) {
	big := content(copyThreshold+1, 3)
	empty, blake := digest.SHA256.Empty(), blake(t, "abc")
	huge := digest.New(digest.SHA256, abc.Hash(), 1<<62)
	find := encoded(t, &findResponse{missing: []digest.Digest{abc, empty, blake, huge}}, &repb.FindMissingBlobsResponse{})
	for i, d := range []digest.Digest{abc, empty, blake, huge} {
		if !proto.Equal(find.MissingBlobDigests[i], d.Proto()) {
			t.Errorf("missing %v, want %s", find.MissingBlobDigests[i], d)
		}
	}
	failed := &spb.Status{Code: 3, Message: string(bytes.Repeat([]byte("m"), 300))}
	items := []batchItem{
		{digest: abc, data: []byte("abc")}, {digest: huge, data: big, compressor: Zstd}, {digest: empty, data: []byte{}},
		{raw: &repb.Digest{Hash: "bad", SizeBytes: -7}, status: failed}, {digest: blake, status: failed},
	}
	read := encoded(t, &batchResponse{items: items, tagStatus: tagReadStatus}, &repb.BatchReadBlobsResponse{})
	update := encoded(t, &batchResponse{items: []batchItem{{digest: abc}, {digest: blake, status: failed}}, tagStatus: tagUpdateStatus}, &repb.BatchUpdateBlobsResponse{})
	for i, item := range items {
		r, want := read.Responses[i], item.raw
		if want == nil {
			want = item.digest.Proto()
		}
		if !proto.Equal(r.Digest, want) || !bytes.Equal(r.Data, item.data) || r.Compressor != item.compressor.Proto() || r.Status == nil || r.Status.Code != item.status.GetCode() || r.Status.Message != item.status.GetMessage() {
			t.Errorf("item %d came back as %v", i, r)
		}
	}
	if u := update.Responses; len(u) != 2 || u[0].Status == nil || u[0].Status.Code != 0 || u[1].Status.Code != 3 || !proto.Equal(u[1].Digest, blake.Proto()) {
		t.Errorf("update responses %v", u)
	}
	tree := encoded(t, &treeResponse{dirs: [][]byte{{}, marshal(t, &repb.Directory{Files: []*repb.FileNode{{Name: "f"}}})}, token: "7"}, &repb.GetTreeResponse{})
	if len(tree.Directories) != 2 || tree.Directories[1].Files[0].Name != "f" || tree.NextPageToken != "7" {
		t.Errorf("tree %v", tree)
	}
	for _, data := range [][]byte{nil, []byte("x"), big} {
		wire, err := (&readResponse{data: mem.SliceBuffer(data)}).encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		var r bspb.ReadResponse
		if err := (&codec{pool: &buffer.Pool{}}).Unmarshal(wire, &r); err != nil || !bytes.Equal(r.Data, data) {
			t.Errorf("%d bytes came back as %d, %v", len(data), len(r.Data), err)
		}
	}
}
