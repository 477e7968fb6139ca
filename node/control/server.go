package control

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Node answers the questions of the control API. Its methods are called from many goroutines.
type Node interface {
	Status(ctx context.Context) *controlv1.StatusResponse
	Doctor(ctx context.Context) []*controlv1.Check
	CacheStat(ctx context.Context) *controlv1.CacheStatResponse
	// Verify checks every blob and calls progress, from one goroutine, as often as it likes.
	Verify(ctx context.Context, bytesPerSecond int64, progress func(blobs, bytes int64)) (*controlv1.CacheVerifyResponse, error)
	Collect(ctx context.Context) (freed int64, err error)
}

// verifyInterval is the least time between two progress messages of one verification.
const verifyInterval = 500 * time.Millisecond

// Server serves the control API on one listener.
type Server struct {
	grpc     *grpc.Server
	listener net.Listener
}

// Listen makes a Server for node on the unix socket at path. Serve must be called.
func Listen(path string, node Node) (*Server, error) {
	listener, err := ListenUnix(path)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	controlv1.RegisterControlServer(server, &service{node: node})
	return &Server{grpc: server, listener: listener}, nil
}

// Registrar is where further services of the node are registered, before Serve.
func (s *Server) Registrar() grpc.ServiceRegistrar { return s.grpc }

// Serve answers until Close and returns nil then.
func (s *Server) Serve() error {
	if err := s.grpc.Serve(s.listener); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Close ends Serve: calls under way may finish within grace, then they are cut off.
func (s *Server) Close(grace time.Duration) {
	var stopped sync.WaitGroup
	timer := time.AfterFunc(grace, s.grpc.Stop)
	stopped.Go(s.grpc.GracefulStop)
	stopped.Wait()
	timer.Stop()
}

// service is the gRPC face of a Node.
type service struct {
	controlv1.UnimplementedControlServer
	node Node
}

func (s *service) Status(ctx context.Context, _ *controlv1.StatusRequest) (*controlv1.StatusResponse, error) {
	return s.node.Status(ctx), nil
}

func (s *service) Doctor(ctx context.Context, _ *controlv1.DoctorRequest) (*controlv1.DoctorResponse, error) {
	return &controlv1.DoctorResponse{Checks: s.node.Doctor(ctx)}, nil
}

func (s *service) CacheStat(ctx context.Context, _ *controlv1.CacheStatRequest) (*controlv1.CacheStatResponse, error) {
	return s.node.CacheStat(ctx), nil
}

func (s *service) CacheCollect(ctx context.Context, _ *controlv1.CacheCollectRequest) (*controlv1.CacheCollectResponse, error) {
	freed, err := s.node.Collect(ctx)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &controlv1.CacheCollectResponse{FreedBytes: freed}, nil
}

func (s *service) CacheVerify(r *controlv1.CacheVerifyRequest, stream grpc.ServerStreamingServer[controlv1.CacheVerifyResponse]) error {
	if r.BytesPerSecond < 0 {
		return status.Error(codes.InvalidArgument, "bytes_per_second is negative")
	}
	store := s.node.CacheStat(stream.Context()).GetStore()
	var last time.Time
	report, err := s.node.Verify(stream.Context(), r.BytesPerSecond, func(blobs, bytes int64) {
		if time.Since(last) < verifyInterval {
			return
		}
		last = time.Now()
		// A client that has gone cancels the stream's context, which ends Verify.
		_ = stream.Send(&controlv1.CacheVerifyResponse{
			Blobs: blobs, Bytes: bytes, TotalBlobs: max(blobs, store.GetBlobs()), TotalBytes: max(bytes, store.GetBytes()),
		})
	})
	if err != nil {
		return status.FromContextError(errors.Join(stream.Context().Err(), err)).Err()
	}
	report.Done = true
	return stream.Send(report)
}
