package conformance

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
)

// nameChecks hold of the resource names of ByteStream.
func nameChecks() []Check {
	cas, src := []Feature{Cache}, "service ContentAddressableStorage, resource names"
	return []Check{
		{
			Claim: "a_write_is_uploads_uuid_blobs_hash_size", Needs: cas, Run: checkWriteName, Source: src,
			Rule: "[instance/]uploads/{uuid}/blobs/[function/]{hash}/{size}",
		},
		{
			Claim: "a_write_name_may_go_on_with_anything", Needs: cas, Run: checkTrailing, Source: src + ", optional_metadata",
			Rule: "anything may follow the size in a write's name, several segments included",
		},
		{
			Claim: "a_compressed_write_is_uploads_uuid_compressed_blobs", Needs: []Feature{Cache, Zstd}, Run: checkZstdWriteName, Source: src,
			Rule: "[instance/]uploads/{uuid}/compressed-blobs/zstd/[function/]{hash}/{size}[/anything], hash and size of the uncompressed bytes",
		},
		{
			Claim: "a_read_name_ends_with_the_size", Needs: cas, Level: Should, Run: checkReadTrailing, Source: src,
			Rule: "a read's name has nothing after the size",
		},
		{
			Claim: "identity_is_no_compressor_segment", Needs: cas, Run: checkIdentitySegment, Source: src + ", compressor",
			Rule: "compressed-blobs/identity/... names nothing: INVALID_ARGUMENT",
		},
		{
			Claim: "an_unknown_compressor_is_refused", Needs: cas, Run: checkUnknownCompressor, Source: src + ", compressor",
			Rule: "a compressor that is not advertised gets INVALID_ARGUMENT or NOT_FOUND on reads, INVALID_ARGUMENT on writes",
		},
		{
			Claim: "a_uuid_may_repeat_for_different_blobs", Needs: cas, Run: checkSameUUID, Source: src + ", uuid",
			Rule: "clients may reuse the same uuid for uploading different blobs",
		},
		{
			Claim: "BLAKE3_has_a_segment_of_its_own", Needs: []Feature{Cache, Blake3}, Run: checkBlakeSegment, Source: src + ", digest_function",
			Rule: "the digest function stands in the name for BLAKE3, in reads and writes, plain and compressed",
		},
		{
			Claim: "malformed_names_are_refused", Needs: cas, Run: checkMalformedNames, Source: src,
			Rule: "names that follow none of the forms get INVALID_ARGUMENT (or NOT_FOUND on a read), never a crash or an internal error",
		},
	}
}

// wantWritten uploads data under name and reads it back.
func wantWritten(ctx context.Context, t T, s *Subject, name string, data []byte) {
	t.Helper()
	if n, err := s.Write(ctx, name, data); err != nil || n != int64(len(data)) {
		t.Errorf("ByteStream.Write of %s: committed %d, %v, want %d and no error", name, n, err, len(data))
		return
	}
	s.WantReadable(ctx, t, data)
}

func checkWriteName(ctx context.Context, t T, s *Subject) {
	data := s.Blob(1000)
	wantWritten(ctx, t, s, s.WriteName(s.Digest(data)), data)
}

func checkTrailing(ctx context.Context, t T, s *Subject) {
	for _, rest := range []string{"/file.txt", "/some/dir/file.txt", "/blobs/x/1", "/ "} {
		data := s.Blob(1000)
		wantWritten(ctx, t, s, s.WriteName(s.Digest(data))+rest, data)
	}
}

func checkZstdWriteName(ctx context.Context, t T, s *Subject) {
	for _, rest := range []string{"", "/some/file.txt"} {
		data := s.Text(1000)
		name := s.ZstdWriteName(s.Digest(data)) + rest
		if _, err := s.Write(ctx, name, compress(t, data)); err != nil {
			t.Errorf("ByteStream.Write of %s: %v", name, err)
			continue
		}
		s.WantReadable(ctx, t, data)
	}
}

func checkReadTrailing(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(10))[0]
	_, err := s.Read(ctx, s.ReadName(d)+"/file.txt", 0, 0)
	wantCode(t, err, "ByteStream.Read of a name with something after the size", codes.InvalidArgument, codes.NotFound)
}

func checkIdentitySegment(ctx context.Context, t T, s *Subject) {
	data := s.Blob(10)
	d := s.Put(ctx, t, data)[0]
	_, err := s.Read(ctx, s.inst("compressed-blobs/identity/"+s.path(d)), 0, 0)
	wantCode(t, err, "ByteStream.Read of compressed-blobs/identity", codes.InvalidArgument)
	other := s.Blob(10)
	name := s.inst("uploads/" + uuid.NewString() + "/compressed-blobs/identity/" + s.path(s.Digest(other)))
	_, err = s.Write(ctx, name, other)
	wantCode(t, err, "ByteStream.Write of compressed-blobs/identity", codes.InvalidArgument)
}

func checkUnknownCompressor(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(10))[0]
	for _, c := range []string{"lzma", "ZSTD"} {
		_, err := s.Read(ctx, s.inst("compressed-blobs/"+c+"/"+s.path(d)), 0, 0)
		wantCode(t, err, "ByteStream.Read with compressor "+c, codes.InvalidArgument, codes.NotFound)
		other := s.Blob(10)
		name := s.inst("uploads/" + uuid.NewString() + "/compressed-blobs/" + c + "/" + s.path(s.Digest(other)))
		_, err = s.Write(ctx, name, other)
		wantCode(t, err, "ByteStream.Write with compressor "+c, codes.InvalidArgument)
	}
}

func checkSameUUID(ctx context.Context, t T, s *Subject) {
	id := uuid.NewString()
	for range 2 {
		data := s.Blob(2000)
		wantWritten(ctx, t, s, s.inst("uploads/"+id+"/blobs/"+s.path(s.Digest(data))), data)
	}
}

func checkBlakeSegment(ctx context.Context, t T, s *Subject) {
	s = s.With(BLAKE3)
	data := s.Text(3000)
	if name := s.ReadName(s.Digest(data)); !strings.Contains(name, "/blake3/") && !strings.HasPrefix(name, "blobs/blake3/") {
		t.Fatalf("the suite made the name %s", name)
	}
	wantWritten(ctx, t, s, s.WriteName(s.Digest(data)), data)
	if _, absent := s.absent[Zstd]; absent {
		return
	}
	other := s.Text(3000)
	if _, err := s.Write(ctx, s.ZstdWriteName(s.Digest(other)), compress(t, other)); err != nil {
		t.Errorf("ByteStream.Write of %s: %v", s.ZstdWriteName(s.Digest(other)), err)
	}
	s.WantReadable(ctx, t, other)
	packed, err := s.Read(ctx, s.ZstdReadName(s.Digest(other)), 0, 0)
	if err != nil || !bytes.Equal(decompress(t, packed), other) {
		t.Errorf("ByteStream.Read of %s: %v, or other bytes", s.ZstdReadName(s.Digest(other)), err)
	}
}

func checkMalformedNames(ctx context.Context, t T, s *Subject) {
	d := s.Digest(s.Blob(10))
	id := uuid.NewString()
	for _, rest := range []string{
		"", "blobs", "blobs/", "blobs/" + d.Hash, "blobs/" + d.Hash + "/", "blobs/" + d.Hash + "/ten", "blobs/" + d.Hash + "/-10",
		"blobs/" + d.Hash + "/99999999999999999999", "blobs//" + d.Hash + "/10", "blob/" + d.Hash + "/10", "blobs/" + d.Hash + "/0x0a",
		"compressed-blobs/" + d.Hash + "/10", "blobs/nofunction/" + d.Hash + "/10", "../blobs/" + d.Hash[:4] + "/10",
	} {
		_, err := s.Read(ctx, s.inst(rest), 0, 0)
		wantCode(t, err, fmt.Sprintf("ByteStream.Read of %q", s.inst(rest)), codes.InvalidArgument, codes.NotFound)
	}
	for _, rest := range []string{
		"", "uploads", "uploads/" + id, "uploads/" + id + "/blobs/" + d.Hash, "uploads/" + id + "/blobs/" + d.Hash + "/ten",
		"uploads/" + id + "/blob/" + d.Hash + "/10", "blobs/" + d.Hash + "/10", "uploads/blobs/" + d.Hash + "/10",
	} {
		_, err := s.Write(ctx, s.inst(rest), []byte("0123456789"))
		wantCode(t, err, fmt.Sprintf("ByteStream.Write of %q", s.inst(rest)), codes.InvalidArgument)
	}
}
