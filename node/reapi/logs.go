package reapi

import (
	"bytes"
	"context"
	"errors"
	"io"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/node/logstream"
)

// Logs is what ByteStream reads and writes beside blobs, by names of their own: *logstream.Streams.
type Logs interface {
	// Read sends the bytes from offset on, at most limit of them unless that is 0, and waits for more
	// until the log is final.
	Read(ctx context.Context, name string, offset, limit int64, send func([]byte) error) error
	// Write commits data at offset, and nothing after finish.
	Write(name string, offset int64, data []byte, finish bool) (committed int64, err error)
	// Committed gives the size of a log that is written and whether it is final.
	Committed(name string) (size int64, final bool, err error)
}

// isLog reports whether a resource name is a log's and not a blob's.
func (s *streamService) isLog(name string) bool { return s.logs != nil && logstream.IsName(name) }

// readLog is Read for a log.
func (s *streamService) readLog(q *bspb.ReadRequest, stream grpc.ServerStream) error {
	return s.logs.Read(stream.Context(), q.ResourceName, q.ReadOffset, q.ReadLimit, func(data []byte) error {
		return stream.SendMsg(&bspb.ReadResponse{Data: data})
	})
}

// writeLog is Write for a log, of which the first message was received. Every message is committed
// when it comes, so that readers see it.
func (s *streamService) writeLog(in *messages) (int64, error) {
	in.present = func() bool { return false }
	for {
		data := bytes.Join(in.pieces, nil)
		committed, err := s.logs.Write(in.name, in.message.offset, data, in.message.finish)
		if err != nil {
			return 0, err
		}
		switch err := in.advance(); {
		case err == io.EOF:
			return committed, in.end()
		case errors.Is(err, errUnfinished):
			return committed, nil
		case err != nil:
			return 0, err
		}
	}
}

// logStatus is QueryWriteStatus for a log.
func (s *streamService) logStatus(name string) (*bspb.QueryWriteStatusResponse, error) {
	size, final, err := s.logs.Committed(name)
	if err != nil {
		return nil, err
	}
	return &bspb.QueryWriteStatusResponse{CommittedSize: size, Complete: final}, nil
}
