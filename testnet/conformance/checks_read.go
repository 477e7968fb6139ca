package conformance

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
)

// readChecks hold of ByteStream.Read, uncompressed.
func readChecks() []Check {
	cas, src := []Feature{Cache}, "google.bytestream.ReadRequest"
	return []Check{
		{
			Claim: "a_read_gives_the_whole_blob", Needs: cas, Run: checkReadWhole, Source: "rpc ByteStream.Read",
			Rule: "blobs of every size come back byte for byte, those above a message's limit in several messages",
		},
		{
			Claim: "a_read_starts_at_its_offset", Needs: cas, Run: checkReadOffset, Source: src + ".read_offset",
			Rule: "read_offset skips that many bytes; an offset of the blob's size gives no bytes and OK",
		},
		{
			Claim: "a_read_ends_at_its_limit", Needs: cas, Run: checkReadLimit, Source: src + ".read_limit",
			Rule: "no more than read_limit bytes are sent; 0 is no limit, a limit beyond the end is no error",
		},
		{
			Claim: "a_negative_offset_is_OUT_OF_RANGE", Needs: cas, Run: checkReadNegative, Source: src + ".read_offset",
			Rule: "a negative read_offset gets OUT_OF_RANGE",
		},
		{
			Claim: "an_offset_beyond_the_size_is_OUT_OF_RANGE", Needs: cas, Run: checkReadBeyond, Source: src + ".read_offset",
			Rule: "a read_offset greater than the size gets OUT_OF_RANGE",
		},
		{
			Claim: "a_negative_limit_is_INVALID_ARGUMENT", Needs: cas, Run: checkReadNegativeLimit, Source: src + ".read_limit",
			Rule: "a negative read_limit gets an error, INVALID_ARGUMENT (the message itself says OUT_OF_RANGE)",
		},
		{
			Claim: "an_absent_blob_is_NOT_FOUND", Needs: cas, Run: checkReadAbsent, Source: "rpc ByteStream.Read",
			Rule: "a well formed name of a blob the CAS does not have gets NOT_FOUND",
		},
	}
}

func checkReadWhole(ctx context.Context, t T, s *Subject) {
	for _, n := range []int{1, 4095, 4096, 65537, 1 << 20, messageLimit + 1, 9<<20 + 1} {
		data := s.Blob(n)
		s.Put(ctx, t, data)
		s.WantReadable(ctx, t, data)
	}
}

func checkReadOffset(ctx context.Context, t T, s *Subject) {
	for _, size := range []int{1000, 3 << 20} {
		data := s.Blob(size)
		d := s.Put(ctx, t, data)[0]
		for _, off := range []int{1, size / 2, size - 1, size} {
			got, err := s.Read(ctx, s.ReadName(d), int64(off), 0)
			if err != nil || !bytes.Equal(got, data[off:]) {
				t.Errorf("ByteStream.Read of %d bytes from offset %d: %d bytes, %v, want %d", size, off, len(got), err, size-off)
			}
		}
	}
}

func checkReadLimit(ctx context.Context, t T, s *Subject) {
	for _, size := range []int{1000, 3 << 20} {
		data := s.Blob(size)
		d := s.Put(ctx, t, data)[0]
		for _, c := range []struct{ off, limit int }{
			{0, 1}, {0, size / 2}, {0, size}, {0, size + 1000}, {size / 3, size / 3}, {size - 1, 1}, {size - 1, 100}, {size, 1},
		} {
			got, err := s.Read(ctx, s.ReadName(d), int64(c.off), int64(c.limit))
			want := data[c.off:min(size, c.off+c.limit)]
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("ByteStream.Read of %d bytes, offset %d, limit %d: %d bytes, %v, want %d", size, c.off, c.limit, len(got), err, len(want))
			}
		}
	}
}

func checkReadNegative(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(100))[0]
	_, err := s.Read(ctx, s.ReadName(d), -1, 0)
	wantCode(t, err, "ByteStream.Read from offset -1", codes.OutOfRange)
}

func checkReadBeyond(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(100))[0]
	for _, off := range []int64{101, 1 << 40} {
		_, err := s.Read(ctx, s.ReadName(d), off, 0)
		wantCode(t, err, fmt.Sprintf("ByteStream.Read of 100 bytes from offset %d", off), codes.OutOfRange)
	}
}

func checkReadNegativeLimit(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(100))[0]
	_, err := s.Read(ctx, s.ReadName(d), 0, -1)
	wantCode(t, err, "ByteStream.Read with limit -1", codes.InvalidArgument, codes.OutOfRange)
}

func checkReadAbsent(ctx context.Context, t T, s *Subject) {
	_, err := s.Read(ctx, s.ReadName(s.Unseen()), 0, 0)
	wantCode(t, err, "ByteStream.Read of an absent blob", codes.NotFound)
}
