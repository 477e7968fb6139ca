package reapi

import (
	"context"
	"errors"
	"fmt"
	"io"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/digest"
)

var (
	// errPresent ends an upload whose blob has become present by another.
	errPresent = errors.New("blob is already present")
	// errUnfinished ends an upload whose client closed the stream without finish_write.
	errUnfinished = errors.New("stream ended before finish_write")
)

// handleStreamWrite is the gRPC handler of Write.
func handleStreamWrite(srv any, stream grpc.ServerStream) error {
	s := srv.(*streamService)
	in := &messages{stream: stream}
	defer in.message.release()
	committed, err := s.write(in)
	if err != nil {
		return err
	}
	return stream.SendMsg(&bspb.WriteResponse{CommittedSize: committed})
}

// write implements Write and gives the committed size.
func (s *streamService) write(in *messages) (int64, error) {
	if err := in.first(); err != nil {
		return 0, err
	}
	if s.isLog(in.name) {
		return s.writeLog(in)
	}
	name, err := ParseWrite(in.name)
	if err != nil {
		return 0, err
	}
	size := name.Digest.Size()
	if s.limits.MaxBlob > 0 && size > s.limits.MaxBlob {
		return 0, invalid("resource_name", "blob of %d bytes is larger than %d", size, s.limits.MaxBlob)
	}
	early := size
	if name.Compressor != Identity {
		early = -1
	}
	ctx := in.stream.Context()
	blobs := s.within(name.Instance)
	missing, err := blobs.Missing(ctx, digests(name))
	if err != nil {
		return 0, err
	}
	if len(missing) == 0 {
		return early, nil
	}
	in.present = func() bool { return blobs.Contains(name.Digest) }
	p, err := s.uploads.begin(ctx, blobs, in.name, name.Digest, in.message.offset)
	if err != nil {
		return 0, err
	}
	err = s.receive(name.Compressor, in, p)
	switch {
	case err == nil:
		if err := s.uploads.commit(p); err != nil {
			return 0, uploadError(err)
		}
		return in.next, in.end()
	case errors.Is(err, errPresent):
		s.uploads.abort(p)
		return early, nil
	case errors.Is(err, errUnfinished):
		return s.unfinished(in, p)
	case resumable(err):
		s.uploads.park(p)
	default:
		s.uploads.abort(p)
	}
	return 0, err
}

// resumable reports whether an upload failed by the connection and not by its content.
func resumable(err error) bool {
	var broken *streamError
	return errors.As(err, &broken)
}

// unfinished answers a client that closed its stream without finish_write: all bytes are as good as
// finished, fewer may be followed by others.
func (s *streamService) unfinished(in *messages, p *upload) (int64, error) {
	committed := p.offset.Load()
	if committed < p.digest.Size() {
		s.uploads.park(p)
		return committed, nil
	}
	if err := s.uploads.commit(p); err != nil {
		return 0, uploadError(err)
	}
	return in.next, nil
}

// receive writes the stream's content to p until finish_write.
func (s *streamService) receive(c Compressor, in *messages, p *upload) error {
	if c == Identity {
		return in.copyTo(p)
	}
	if err := s.packer.expand(c, p, in); err != nil {
		switch {
		case in.err != nil && in.err != io.EOF:
			return in.err // a stream that broke, which the decompressor saw as the end of its data
		case p.err != nil:
			return p.err
		}
		return invalid("data", "decompress %s: %v", c, err)
	}
	return in.drain()
}

// QueryWriteStatus implements QueryWriteStatus.
func (s *streamService) QueryWriteStatus(ctx context.Context, q *bspb.QueryWriteStatusRequest) (*bspb.QueryWriteStatusResponse, error) {
	if s.isLog(q.ResourceName) {
		return s.logStatus(q.ResourceName)
	}
	name, err := ParseWrite(q.ResourceName)
	if err != nil {
		return nil, err
	}
	missing, err := s.within(name.Instance).Missing(ctx, digests(name))
	if err != nil {
		return nil, err
	}
	if len(missing) == 0 {
		return &bspb.QueryWriteStatusResponse{CommittedSize: name.Digest.Size(), Complete: true}, nil
	}
	return &bspb.QueryWriteStatusResponse{CommittedSize: s.uploads.committed(q.ResourceName)}, nil
}

// handleQuery is the gRPC handler of QueryWriteStatus.
func handleQuery(srv any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
	q := &bspb.QueryWriteStatusRequest{}
	if err := decode(q); err != nil {
		return nil, err
	}
	return around(ctx, q, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/google.bytestream.ByteStream/QueryWriteStatus"},
		func(ctx context.Context, _ any) (any, error) { return srv.(*streamService).QueryWriteStatus(ctx, q) })
}

// digests is the one digest of a name, as a list.
func digests(name Resource) []digest.Digest { return []digest.Digest{name.Digest} }

// streamError is a stream that broke while it was received.
type streamError struct{ err error }

func (e *streamError) Error() string { return fmt.Sprintf("receive: %v", e.err) }
func (e *streamError) Unwrap() error { return e.err }
