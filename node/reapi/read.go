package reapi

import (
	"context"
	"errors"
	"fmt"
	"io"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// readChunk is how many bytes of a blob one message carries: large enough to make the cost of a
// message vanish, small enough for two to fit a client's receive limit of 4 MiB.
const readChunk = 1 << 20

// streamService serves google.bytestream.ByteStream, whose handlers in streamDesc use messages of
// this package.
type streamService struct {
	bspb.UnimplementedByteStreamServer
	blobs   Blobs
	within  func(instance string) Blobs
	uploads *Uploads
	logs    Logs // nil: no log streams
	packer  *packer
	pool    *buffer.Pool
	limits  Limits
}

// handleStreamRead is the gRPC handler of Read.
func handleStreamRead(srv any, stream grpc.ServerStream) error {
	s := srv.(*streamService)
	var q bspb.ReadRequest
	if err := stream.RecvMsg(&q); err != nil {
		return err
	}
	return s.read(&q, stream)
}

// read implements Read.
func (s *streamService) read(q *bspb.ReadRequest, stream grpc.ServerStream) error {
	if s.isLog(q.ResourceName) {
		return s.readLog(q, stream)
	}
	name, err := ParseRead(q.ResourceName)
	if err != nil {
		return err
	}
	size := name.Digest.Size()
	switch {
	case q.ReadLimit < 0:
		return invalid("read_limit", "%d is negative", q.ReadLimit)
	case name.Compressor != Identity && q.ReadLimit != 0:
		return invalid("read_limit", "must be 0 when reading compressed")
	case q.ReadOffset < 0 || q.ReadOffset > size:
		return &RangeError{Offset: q.ReadOffset, Size: size}
	}
	r, err := s.blobs.NewReader(stream.Context(), name.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	part := part{reader: r, at: q.ReadOffset, end: size}
	if q.ReadLimit > 0 {
		part.end = min(size, q.ReadOffset+min(q.ReadLimit, size))
	}
	out := &sender{stream: stream, pool: s.pool}
	if name.Compressor != Identity {
		return s.sendCompressed(name.Compressor, out, part)
	}
	return out.send(part)
}

// part is a section of a blob that is still to be sent.
type part struct {
	reader  *cas.Reader
	at, end int64
}

// read fills b with the next bytes.
func (p *part) read(b []byte) error {
	n, err := p.reader.ReadAt(b, p.at)
	p.at += int64(n)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read blob at %d: %w", p.at, err)
}

// sendCompressed sends a section as one compressed stream: never nothing, since no bytes at all are
// not a frame of no content.
func (s *streamService) sendCompressed(c Compressor, out *sender, p part) error {
	w, err := s.packer.pack(c, out)
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	buffer := s.pool.Get(readChunk)
	defer s.pool.Put(buffer)
	for err == nil && p.at < p.end {
		b := (*buffer)[:min(int64(len(*buffer)), p.end-p.at)]
		if err = p.read(b); err == nil {
			_, err = w.Write(b)
		}
	}
	// The encoder is closed whatever happened: it goes back to its pool.
	if closed := w.Close(); err == nil {
		err = closed
	}
	if err != nil {
		out.drop()
		return err
	}
	return out.flush()
}

// sender sends bytes as ReadResponses of readChunk bytes. While gRPC writes one to the connection
// the next is read: SendMsg returns as soon as the previous message has gone.
type sender struct {
	stream  grpc.ServerStream
	pool    *buffer.Pool
	pending *[]byte // bytes written but not yet sent
}

// send reads p and sends it.
func (s *sender) send(p part) error {
	for p.at < p.end {
		if err := s.stream.Context().Err(); err != nil {
			return context.Cause(s.stream.Context())
		}
		b := s.pool.Get(int(min(readChunk, p.end-p.at)))
		if err := p.read(*b); err != nil {
			s.pool.Put(b)
			return err
		}
		if err := s.message(b); err != nil {
			return err
		}
	}
	return nil
}

// message sends b and gives it back to the pool once it has gone.
func (s *sender) message(b *[]byte) error {
	return s.stream.SendMsg(&readResponse{data: mem.NewBuffer(b, s.pool)})
}

// Write gathers bytes and sends full messages.
func (s *sender) Write(b []byte) (int, error) {
	total := len(b)
	for len(b) > 0 {
		if s.pending == nil {
			s.pending = s.pool.Get(readChunk)
			*s.pending = (*s.pending)[:0]
		}
		n := min(len(b), readChunk-len(*s.pending))
		*s.pending = append(*s.pending, b[:n]...)
		b = b[n:]
		if len(*s.pending) == readChunk {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

// flush sends what was gathered.
func (s *sender) flush() error {
	b := s.pending
	s.pending = nil
	if b == nil {
		return nil
	}
	return s.message(b)
}

// drop forgets what was gathered.
func (s *sender) drop() {
	if s.pending != nil {
		s.pool.Put(s.pending)
		s.pending = nil
	}
}
