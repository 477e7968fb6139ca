package wrong

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// compress makes one zstd frame.
func compress(data []byte) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic("wrong: zstd encoder: " + err.Error()) // only wrong options make it fail
	}
	packed := w.EncodeAll(data, nil)
	_ = w.Close() // nothing was written through it
	if len(packed) == 0 {
		packed = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00} // an empty frame
	}
	return packed
}

// decompress reads a zstd stream that has to decode to exactly size bytes, and no byte further.
func (s *Server) decompress(packed []byte, size int64) ([]byte, error) {
	if size == 0 && len(packed) == 0 {
		return nil, nil
	}
	data, err := s.decode(packed, size)
	if err != nil && s.has(TruncatedFrameAccepted) {
		data, err = s.decode(append(bytes.Clone(packed), 0), size) // the byte stands for the end of the checksum
	}
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "zstd: %v", err)
	}
	if int64(len(data)) > size {
		return nil, status.Errorf(codes.InvalidArgument, "the data decodes to more than %d bytes", size)
	}
	return data, nil
}

// decode gives at most size+1 bytes.
func (s *Server) decode(packed []byte, size int64) ([]byte, error) {
	r, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20),
		zstd.IgnoreChecksum(s.has(TruncatedFrameAccepted)))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if s.has(ExcessIgnored) {
		return io.ReadAll(io.LimitReader(r, size))
	}
	return io.ReadAll(io.LimitReader(s.frames(r), size+1))
}

// frames is r, or its first piece for OneFrameOnly.
func (s *Server) frames(r io.Reader) io.Reader {
	if !s.has(OneFrameOnly) {
		return r
	}
	first := make([]byte, 5000) // the suite's first frame
	n, _ := io.ReadFull(r, first)
	return bytes.NewReader(first[:n])
}
