package wrong

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"
	"github.com/google/uuid"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// logStream is an ordered sequence of bytes that is read while it grows.
type logStream struct {
	name, secret string

	mu      sync.Mutex // guards what follows
	data    []byte
	final   bool
	changed chan struct{} // closed and replaced at each change
}

// state is what has been written, whether that is all, and a channel closed at the next change.
func (l *logStream) state() ([]byte, bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data, l.final, l.changed
}

// write appends at offset and perhaps finalises; it gives the committed size.
func (l *logStream) write(s *Server, offset int64, data []byte, final bool) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.final && !s.has(LogFinalAppendable) {
		return 0, status.Errorf(codes.FailedPrecondition, "log stream %s is finalised", l.name)
	}
	if offset != int64(len(l.data)) {
		return 0, status.Errorf(codes.InvalidArgument, "offset %d after %d bytes", offset, len(l.data))
	}
	l.data, l.final = append(bytes.Clone(l.data), data...), final
	close(l.changed)
	l.changed = make(chan struct{})
	return int64(len(l.data)), nil
}

// addLog makes a log stream.
func (s *Server) addLog(parent string) *logStream {
	name := "logstreams/" + uuid.NewString()
	if parent != "" {
		name = parent + "/" + name
	}
	l := &logStream{name: name, secret: uuid.NewString(), changed: make(chan struct{})}
	if s.has(LogWriteNameGuessable) {
		l.secret = "write-secret"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs[name] = l
	return l
}

// CreateLogStream makes a log stream and tells both its names.
func (s *Server) CreateLogStream(_ context.Context, req *logpb.CreateLogStreamRequest) (*logpb.LogStream, error) {
	l := s.addLog(req.Parent)
	return &logpb.LogStream{Name: l.name, WriteResourceName: l.name + "/" + l.secret}, nil
}

// log finds the log stream of a resource name. found is false when the name is not one of a log
// stream; secret is what follows the public name.
func (s *Server) log(name string) (l *logStream, secret string, found bool) {
	at := strings.Index("/"+name, "/logstreams/")
	if at < 0 {
		return nil, "", false
	}
	id, secret, _ := strings.Cut(name[at+len("logstreams/"):], "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs[name[:at]+"logstreams/"+id], secret, true
}

// readLog sends a log stream from offset on until it is finalised.
func (s *Server) readLog(l *logStream, secret string, offset int64, to bspb.ByteStream_ReadServer) error {
	if l == nil && s.has(LogUnknownIsEmpty) {
		return nil
	}
	if l == nil {
		return status.Error(codes.NotFound, "log stream")
	}
	if secret != "" && !s.has(LogWriteNameReadable) {
		return status.Error(codes.InvalidArgument, "the name is one for writing")
	}
	if s.has(LogOffsetIgnored) {
		offset = 0
	}
	for {
		data, final, changed := l.state()
		if offset < 0 || final && offset > int64(len(data)) {
			return status.Errorf(codes.OutOfRange, "offset %d of %d bytes", offset, len(data))
		}
		if offset < int64(len(data)) && (final || !s.has(StdoutStreamAtTheEnd)) {
			if err := s.send(to, data[offset:]); err != nil {
				return err
			}
			offset = int64(len(data))
		}
		if final || s.has(LogNotTailed) {
			return nil
		}
		select {
		case <-changed:
		case <-to.Context().Done():
			return to.Context().Err()
		}
	}
}

// writeLog takes one Write call of a log stream, whose first message is req.
func (s *Server) writeLog(l *logStream, secret string, req *bspb.WriteRequest, from bspb.ByteStream_WriteServer) error {
	if l == nil || secret != l.secret && (secret != "" || !s.has(LogPublicNameWritable)) {
		return status.Error(codes.PermissionDenied, "the name is not one for writing")
	}
	committed := int64(0)
	for {
		var err error
		if committed, err = l.write(s, req.WriteOffset, req.Data, req.FinishWrite); err != nil {
			return err
		}
		if req.FinishWrite {
			break
		}
		if req, err = from.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	if _, final, _ := l.state(); !final && s.has(LogEndsWithCall) {
		if _, err := l.write(s, committed, nil, true); err != nil {
			return err
		}
	}
	return from.SendAndClose(&bspb.WriteResponse{CommittedSize: committed})
}

// liveWriter appends to a log stream what a command prints.
type liveWriter struct {
	server *Server
	log    *logStream
}

// Write appends p; it fails only when the stream is finalised.
func (w liveWriter) Write(p []byte) (int, error) {
	data, _, _ := w.log.state()
	if _, err := w.log.write(w.server, int64(len(data)), p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// end finalises the stream.
func (w liveWriter) end() {
	data, _, _ := w.log.state()
	_, _ = w.log.write(w.server, int64(len(data)), nil, true) // fails only when it is final already
}
