package logstream

import (
	"context"

	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"
)

// Service is the LogStream service. Status gives an error its gRPC status; both fields must be set.
type Service struct {
	logpb.UnimplementedLogStreamServiceServer
	Streams *Streams
	Status  func(error) error
}

// CreateLogStream makes a stream below the parent asked.
func (s *Service) CreateLogStream(_ context.Context, q *logpb.CreateLogStreamRequest) (*logpb.LogStream, error) {
	name, writeName, err := s.Streams.Create(q.Parent)
	if err != nil {
		return nil, s.Status(err)
	}
	return &logpb.LogStream{Name: name, WriteResourceName: writeName}, nil
}
