package conformance

import (
	"bytes"
	"context"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/klauspost/compress/zstd"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
)

// compressionChecks hold of compressed ByteStream reads and writes.
func compressionChecks() []Check {
	z, src := []Feature{Cache, Zstd}, "service ContentAddressableStorage, compressed-blobs"
	return []Check{
		{
			Claim: "a_compressed_read_decodes_to_the_blob", Needs: z, Run: checkZstdRead, Source: src,
			Rule: "every blob can be read in each advertised compressor, however it was uploaded",
		},
		{
			Claim: "a_compressed_read_offset_counts_uncompressed_bytes", Needs: z, Run: checkZstdReadOffset, Source: src,
			Rule: "read_offset is in the uncompressed blob: the stream decodes to what follows it",
		},
		{
			Claim: "a_compressed_read_has_no_limit", Needs: z, Run: checkZstdReadLimit, Source: src,
			Rule: "a read_limit other than 0 gets INVALID_ARGUMENT",
		},
		{
			Claim: "a_compressed_read_of_an_absent_blob_is_NOT_FOUND", Needs: z, Run: checkZstdReadAbsent, Source: src,
			Rule: "NOT_FOUND, as for a plain read",
		},
		{
			Claim: "a_compressed_read_beyond_the_size_is_OUT_OF_RANGE", Needs: z, Run: checkZstdReadBeyond, Source: src,
			Rule: "negative offsets and those beyond the uncompressed size get OUT_OF_RANGE",
		},
		{
			Claim: "a_compressed_write_stores_the_plain_blob", Needs: z, Run: checkZstdWrite, Source: src,
			Rule: "the blob reads plain; committed_size is -1 or the number of compressed bytes (Bazel takes no other)",
		},
		{
			Claim: "a_compressed_write_of_a_known_blob_commits_minus_1", Needs: z, Run: checkZstdWriteKnown, Source: src,
			Rule: "it finishes at once without error and with committed_size -1",
		},
		{
			Claim: "a_compressed_write_of_several_frames_is_taken", Needs: z, Run: checkZstdFrames, Source: "RFC 8878, section 3: frames are concatenated",
			Rule: "a zstd stream may consist of several frames, skippable ones included",
		},
		{
			Claim: "a_compressed_write_of_other_bytes_is_INVALID_ARGUMENT", Needs: z, Run: checkZstdMismatch, Source: src + ": MUST verify",
			Rule: "what decodes to another hash or size gets INVALID_ARGUMENT and is not stored",
		},
		{
			Claim: "a_truncated_frame_is_INVALID_ARGUMENT", Needs: z, Run: checkZstdTruncated, Source: src,
			Rule: "a stream that ends within a frame is refused, even when all the blob's bytes were in it",
		},
		{
			Claim: "a_decompression_bomb_is_INVALID_ARGUMENT", Needs: z, Run: checkZstdBomb, Source: src,
			Rule: "a stream that decodes to more than the named size is refused, as soon as that is known",
		},
		{
			Claim: "bytes_that_are_no_zstd_are_INVALID_ARGUMENT", Needs: z, Run: checkZstdGarbage, Source: src,
			Rule: "plain bytes under a compressed name are refused",
		},
		{
			Claim: "advertised_deflate_works", Needs: []Feature{Cache, Deflate}, Run: checkDeflate, Source: "Compressor.DEFLATE",
			Rule: "what is advertised works: RFC 1951 without headers, both ways",
		},
	}
}

func checkZstdRead(ctx context.Context, t T, s *Subject) {
	for _, data := range [][]byte{s.Text(1), s.Text(100), s.Blob(100_000), s.Text(5 << 20)} {
		d := s.Put(ctx, t, data)[0]
		packed, err := s.Read(ctx, s.ZstdReadName(d), 0, 0)
		if err != nil {
			t.Errorf("ByteStream.Read of %s: %v", s.ZstdReadName(d), err)
		} else if !bytes.Equal(decompress(t, packed), data) {
			t.Errorf("ByteStream.Read of %s decodes to other bytes", s.ZstdReadName(d))
		}
	}
}

func checkZstdReadOffset(ctx context.Context, t T, s *Subject) {
	data := s.Text(1 << 20)
	d := s.Put(ctx, t, data)[0]
	for _, off := range []int{1, 70_000, len(data) - 1, len(data)} {
		packed, err := s.Read(ctx, s.ZstdReadName(d), int64(off), 0)
		if err != nil {
			t.Errorf("compressed ByteStream.Read from offset %d: %v", off, err)
		} else if got := decompress(t, packed); !bytes.Equal(got, data[off:]) {
			t.Errorf("compressed ByteStream.Read from offset %d decodes to %d bytes, want the last %d", off, len(got), len(data)-off)
		}
	}
}

func checkZstdReadLimit(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Text(1000))[0]
	for _, limit := range []int64{1, 1000, -1} {
		_, err := s.Read(ctx, s.ZstdReadName(d), 0, limit)
		wantCode(t, err, fmt.Sprintf("compressed ByteStream.Read with limit %d", limit), codes.InvalidArgument, codes.OutOfRange)
	}
}

func checkZstdReadAbsent(ctx context.Context, t T, s *Subject) {
	_, err := s.Read(ctx, s.ZstdReadName(s.Unseen()), 0, 0)
	wantCode(t, err, "compressed ByteStream.Read of an absent blob", codes.NotFound)
}

func checkZstdReadBeyond(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Text(1000))[0]
	for _, off := range []int64{-1, 1001} {
		_, err := s.Read(ctx, s.ZstdReadName(d), off, 0)
		wantCode(t, err, fmt.Sprintf("compressed ByteStream.Read of 1000 bytes from offset %d", off), codes.OutOfRange)
	}
}

func checkZstdWrite(ctx context.Context, t T, s *Subject) {
	for _, data := range [][]byte{s.Text(1), s.Text(1000), s.Blob(5 * piece)} {
		packed := compress(t, data)
		n, err := s.Write(ctx, s.ZstdWriteName(s.Digest(data)), packed)
		if err != nil {
			t.Errorf("compressed ByteStream.Write of %d bytes: %v", len(data), err)
			continue
		}
		if n != -1 && n != int64(len(packed)) {
			t.Errorf("compressed ByteStream.Write of %d bytes as %d: committed %d, want -1 or %d", len(data), len(packed), n, len(packed))
		}
		s.WantReadable(ctx, t, data)
	}
}

func checkZstdWriteKnown(ctx context.Context, t T, s *Subject) {
	data := s.Blob(4 * piece)
	d := s.Put(ctx, t, data)[0]
	ctx, cancel := context.WithTimeout(ctx, s.answerDeadline())
	defer cancel()
	stream, err := s.Bytes.Write(ctx)
	if err != nil {
		t.Fatalf("ByteStream.Write: %v", err)
	}
	_ = stream.Send(pieces(s.ZstdWriteName(d), compress(t, data))[0]) // an error here comes with the answer
	if n, err := answer(stream); err != nil || n != -1 {
		t.Errorf("compressed ByteStream.Write of a known blob, after its first message: committed %d, %v, want -1 and no error", n, err)
	}
}

func checkZstdFrames(ctx context.Context, t T, s *Subject) {
	a, b := s.Text(5000), s.Blob(70_000)
	data := append(bytes.Clone(a), b...)
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4} // RFC 8878, section 3.1.2
	stream := bytes.Join([][]byte{compress(t, a), skippable, emptyFrame(), compress(t, b)}, nil)
	if _, err := s.Write(ctx, s.ZstdWriteName(s.Digest(data)), stream); err != nil {
		t.Errorf("compressed ByteStream.Write of four frames: %v", err)
		return
	}
	s.WantReadable(ctx, t, data)
}

// wantZstdRefused uploads frame as d and wants INVALID_ARGUMENT and no blob.
func (s *Subject) wantZstdRefused(ctx context.Context, t T, d *repb.Digest, frame []byte, what string) {
	t.Helper()
	_, err := s.Write(ctx, s.ZstdWriteName(d), frame)
	wantCode(t, err, "compressed ByteStream.Write of "+what, codes.InvalidArgument)
	if len(s.Missing(ctx, t, d)) == 0 {
		t.Errorf("compressed ByteStream.Write of %s stored a blob", what)
	}
}

func checkZstdMismatch(ctx context.Context, t T, s *Subject) {
	data := s.Text(1000)
	frame := compress(t, data)
	s.wantZstdRefused(ctx, t, s.Digest(s.Blob(1000)), frame, "another hash")
	s.wantZstdRefused(ctx, t, &repb.Digest{Hash: s.Digest(data).Hash, SizeBytes: 999}, frame, "a smaller size")
	s.wantZstdRefused(ctx, t, &repb.Digest{Hash: s.Digest(data).Hash, SizeBytes: 1001}, frame, "a larger size")
	s.wantZstdRefused(ctx, t, &repb.Digest{Hash: s.Digest(data).Hash, SizeBytes: int64(len(frame))}, frame, "the compressed size")
}

func checkZstdTruncated(ctx context.Context, t T, s *Subject) {
	data := s.Blob(200_000) // blocks are at most 128 KiB: several of them
	frame := compress(t, data)
	for what, cut := range map[string]int{"half a frame": len(frame) / 2, "a frame less its last byte": len(frame) - 1, "half a header": 3} {
		s.wantZstdRefused(ctx, t, s.Digest(data), frame[:cut], what)
	}
}

// zstdBomb is a small frame that decodes to 64 MiB of zeros and does not say so in its header.
func zstdBomb(t T) []byte {
	t.Helper()
	var packed bytes.Buffer
	w, err := zstd.NewWriter(&packed, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatalf("make a zstd encoder: %v", err)
	}
	zeros := make([]byte, 1<<20)
	for range 64 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatalf("compress zeros: %v", err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("compress zeros: %v", err)
	}
	return packed.Bytes()
}

func checkZstdBomb(ctx context.Context, t T, s *Subject) {
	bomb := zstdBomb(t)
	s.wantZstdRefused(ctx, t, s.Digest(s.Blob(10)), bomb, "a bomb")
	// The first bytes are the blob: a server that stops reading at the named size would take it.
	// Its content is made unlike any other upload's by what stands before the zeros.
	head := s.Blob(100)
	s.wantZstdRefused(ctx, t, s.Digest(head), append(compress(t, head), bomb...), "a blob and a bomb behind it")
	s.wantZstdRefused(ctx, t, s.Digest(head), compress(t, append(bytes.Clone(head), 0)), "a blob and one byte more")
}

func checkZstdGarbage(ctx context.Context, t T, s *Subject) {
	data := s.Blob(1000)
	s.wantZstdRefused(ctx, t, s.Digest(data), data, "plain bytes")
	s.wantZstdRefused(ctx, t, s.Digest(data), append(compress(t, data), s.Blob(50)...), "a frame and garbage behind it")
	s.wantZstdRefused(ctx, t, s.Digest(data), nil, "no bytes at all")
}

func checkDeflate(ctx context.Context, t T, s *Subject) {
	data := s.Text(100_000)
	d := s.Digest(data)
	name := s.inst("uploads/" + newUUID() + "/compressed-blobs/deflate/" + s.path(d))
	if _, err := s.Send(ctx, &bspb.WriteRequest{ResourceName: name, Data: deflate(t, data), FinishWrite: true}); err != nil {
		t.Errorf("ByteStream.Write of %s: %v", name, err)
		return
	}
	s.WantReadable(ctx, t, data)
	packed, err := s.Read(ctx, s.inst("compressed-blobs/deflate/"+s.path(d)), 0, 0)
	if err != nil || !bytes.Equal(inflate(t, packed), data) {
		t.Errorf("ByteStream.Read with deflate: %v, or other bytes", err)
	}
}
