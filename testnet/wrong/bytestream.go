package wrong

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// message is the number of bytes of a blob that one message carries.
const message = 64 << 10

// Read sends a blob, plain or compressed.
func (s *Server) Read(req *bspb.ReadRequest, stream bspb.ByteStream_ReadServer) error {
	if l, secret, isLog := s.log(req.ResourceName); isLog {
		return s.readLog(l, secret, req.ReadOffset, stream)
	}
	r, err := s.parse(req.ResourceName, false)
	if err != nil {
		return err
	}
	data, found := s.get(r.digest)
	if !found && !s.has(AbsentReadIsEmpty) {
		return status.Errorf(codes.NotFound, "blob %s", r.digest)
	}
	off, limit := req.ReadOffset, req.ReadLimit
	if r.compressed && limit != 0 && !s.has(CompressedLimitAccepted) {
		return status.Error(codes.InvalidArgument, "a compressed read has no limit")
	}
	if off < 0 && s.has(NegativeOffsetIsZero) || s.has(ReadOffsetIgnored) {
		off = 0
	}
	if off > int64(len(data)) && s.has(ReadBeyondIsEmpty) {
		off = int64(len(data))
	}
	if off < 0 || off > int64(len(data)) {
		return status.Errorf(codes.OutOfRange, "offset %d of %d bytes", off, len(data))
	}
	if limit < 0 && !s.has(NegativeLimitIgnored) {
		return status.Errorf(codes.InvalidArgument, "limit %d", limit)
	}
	if r.compressed && s.has(CompressedOffsetPacked) {
		packed := compress(data)
		return s.send(stream, packed[min(off, int64(len(packed))):])
	}
	data = data[off:]
	if limit > 0 && limit < int64(len(data)) && !s.has(ReadLimitIgnored) {
		data = data[:limit]
	}
	if r.compressed && !s.has(CompressedReadPlain) {
		data = compress(data)
	}
	return s.send(stream, data)
}

func (s *Server) send(stream bspb.ByteStream_ReadServer, data []byte) error {
	size := message
	if s.has(ReadUnsplit) {
		size = max(len(data), 1)
	}
	for part := range slices.Chunk(data, size) {
		if err := stream.Send(&bspb.ReadResponse{Data: part}); err != nil {
			return err
		}
	}
	return nil
}

// Write takes an upload. What an interrupted plain upload has sent is kept under its name, so that
// it can be resumed; a compressed one starts anew.
func (s *Server) Write(stream bspb.ByteStream_WriteServer) error {
	req, err := stream.Recv()
	if err != nil {
		return status.Error(codes.InvalidArgument, "an upload without a message")
	}
	if l, secret, isLog := s.log(req.ResourceName); isLog {
		return s.writeLog(l, secret, req, stream)
	}
	r, err := s.parse(req.ResourceName, true)
	if err != nil {
		return err
	}
	if r.digest.Size() > blobLimit && !s.has(OversizeAccepted) {
		return status.Errorf(codes.InvalidArgument, "blob of %d bytes, limit %d", r.digest.Size(), blobLimit)
	}
	if _, found := s.get(r.digest); found && !s.has(KnownBlobReadToEnd) {
		if s.has(KnownBlobRefused) {
			return status.Errorf(codes.AlreadyExists, "blob %s", r.digest)
		}
		return stream.SendAndClose(&bspb.WriteResponse{CommittedSize: s.known(r)})
	}
	if s.has(OneUploadAtATime) && s.beingWritten(r.digest) {
		return status.Errorf(codes.Aborted, "blob %s is being uploaded", r.digest)
	}
	u := &upload{server: s, resource: r, name: req.ResourceName, stream: stream}
	if s.has(UploadsKeyedByUUID) {
		u.name = r.upload
	}
	return u.receive(req)
}

// known is the committed size of an upload of a blob the server has.
func (s *Server) known(r resource) int64 {
	switch {
	case r.compressed && s.has(CompressedKnownSize):
		return 0
	case r.compressed || s.has(CommittedSizeWrong):
		return -1
	default:
		return r.digest.Size()
	}
}

// upload is one Write call.
type upload struct {
	server   *Server
	resource resource
	name     string
	stream   bspb.ByteStream_WriteServer
	data     []byte // as sent
}

// receive collects the messages from req on and stores the blob.
func (u *upload) receive(req *bspb.WriteRequest) error {
	s := u.server
	if !u.resource.compressed {
		u.data = s.partial(u.name)
	}
	resumed := len(u.data) > 0
	if s.has(ResumeRefused) && resumed {
		u.data = nil
	}
	name := req.ResourceName
	for {
		if req.ResourceName != "" && req.ResourceName != name && !s.has(WriteNameIgnored) {
			return status.Error(codes.InvalidArgument, "another resource name on a later message")
		}
		if req.WriteOffset != int64(len(u.data)) && !s.has(WriteOffsetIgnored) {
			return status.Errorf(codes.InvalidArgument, "offset %d after %d bytes", req.WriteOffset, len(u.data))
		}
		if u.data = append(u.data, req.Data...); !u.resource.compressed && !s.has(PartialForgotten) {
			s.keep(u.name, u.data)
		}
		if req.FinishWrite && !s.has(FinishWriteIgnored) {
			return u.finish()
		}
		if _, found := s.get(u.resource.digest); found && !s.has(KnownBlobReadToEnd) {
			return u.overtaken()
		}
		var err error
		if req, err = u.stream.Recv(); errors.Is(err, io.EOF) {
			if s.has(FinishWriteIgnored) {
				return u.finish()
			}
			return status.Error(codes.InvalidArgument, "the upload ends without finish_write")
		} else if err != nil {
			return err
		}
	}
}

func (u *upload) overtaken() error {
	if u.server.has(OvertakenRefused) {
		return status.Errorf(codes.Aborted, "blob %s was uploaded meanwhile", u.resource.digest)
	}
	return u.stream.SendAndClose(&bspb.WriteResponse{CommittedSize: u.server.known(u.resource)})
}

// finish compares what came with the digest and stores it.
func (u *upload) finish() error {
	s, d := u.server, u.resource.digest
	if !s.has(UploadsKeyedByUUID) {
		s.keep(u.name, nil)
	}
	if _, found := s.get(d); found {
		return u.overtaken()
	}
	if err := u.store(d); err != nil {
		if s.has(MismatchIsInternal) {
			return status.Error(codes.Internal, err.Error())
		}
		return err
	}
	committed := int64(len(u.data))
	switch {
	case s.has(CommittedSizeWrong) || u.resource.compressed && !s.has(CompressedCommittedSize):
		committed = -1
	case u.resource.compressed:
		committed = d.Size()
	}
	return u.stream.SendAndClose(&bspb.WriteResponse{CommittedSize: committed})
}

func (u *upload) store(d digest.Digest) error {
	s, data := u.server, u.data
	if u.resource.compressed {
		var err error
		data, err = s.decompress(data, d.Size())
		if err != nil && s.has(GarbageIsPlain) {
			data = u.data
		} else if err != nil {
			return err
		}
	}
	if s.has(UnverifiedWrite) && !u.resource.compressed || s.has(UnverifiedCompressed) && u.resource.compressed {
		s.put(d, data)
		return nil
	}
	return s.verify(d, data)
}

// partial is what an interrupted upload of that name has sent.
func (s *Server) partial(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.uploads[name])
}

// keep remembers what an upload has sent; nil forgets it.
func (s *Server) keep(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data == nil {
		delete(s.uploads, name)
	} else {
		s.uploads[name] = data
	}
}

// beingWritten reports whether an upload of d has begun. Defects alone ask.
func (s *Server) beingWritten(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.uploads {
		if strings.Contains(name, d.String()) {
			return true
		}
	}
	return false
}

// QueryWriteStatus tells how far an upload is.
func (s *Server) QueryWriteStatus(_ context.Context, req *bspb.QueryWriteStatusRequest) (*bspb.QueryWriteStatusResponse, error) {
	if s.has(WriteStatusUnimplemented) {
		return nil, status.Error(codes.Unimplemented, "QueryWriteStatus")
	}
	r, err := s.parse(req.ResourceName, true)
	if err != nil {
		return nil, err
	}
	if _, found := s.get(r.digest); found && !s.has(WriteStatusForgets) || s.has(WriteStatusAlwaysComplete) {
		return &bspb.QueryWriteStatusResponse{CommittedSize: r.digest.Size(), Complete: true}, nil
	}
	return &bspb.QueryWriteStatusResponse{CommittedSize: int64(len(s.partial(req.ResourceName)))}, nil
}
