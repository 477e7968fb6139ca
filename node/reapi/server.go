package reapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/buildmesh/buildmesh/dht/chunk"
	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// Config is what a Server is made from. All but Within, Name, Logs and Observer must be set.
type Config struct {
	Blobs    Blobs
	Within   func(instance string) Blobs // Blobs as clients of an instance fill it; may be nil: all alike
	Results  Results
	Features Features
	Limits   Limits
	Name     string   // of this node, recorded in results that name no executor
	Logs     Logs     // may be nil: no log streams
	Observer Observer // may be nil
	Log      *slog.Logger
}

// Server is the endpoint: a gRPC server on any number of listeners. Make it with New, register
// further services, add listeners with Listen, run Serve, end with Shutdown.
type Server struct {
	grpc    *grpc.Server
	health  *health.Server
	uploads *Uploads
	packer  *packer

	mu        sync.Mutex // guards listeners
	listeners []net.Listener
}

// New makes a server with the services of this package registered.
func New(c Config) (*Server, error) {
	limits := c.Limits.withDefaults()
	if err := (chunk.Params{Average: limits.ChunkAverage}).Validate(); err != nil {
		return nil, err
	}
	packer, err := newPacker()
	if err != nil {
		return nil, err
	}
	if c.Within == nil {
		c.Within = func(string) Blobs { return c.Blobs }
	}
	buffers := &buffer.Pool{}
	around := &around{observer: c.Observer, log: c.Log}
	s := &Server{
		grpc:    grpc.NewServer(options(buffers, around)...),
		health:  health.NewServer(),
		uploads: NewUploads(limits),
		packer:  packer,
	}
	s.grpc.RegisterService(contentDesc(), &contentService{blobs: c.Blobs, within: c.Within, limits: limits, packer: packer})
	s.grpc.RegisterService(streamDesc(), &streamService{
		blobs: c.Blobs, within: c.Within, uploads: s.uploads, logs: c.Logs, packer: packer, pool: buffers, limits: limits,
	})
	repb.RegisterActionCacheServer(s.grpc, &resultService{
		results: c.Results, blobs: c.Blobs, limits: limits, name: c.Name, closed: c.Features.ReadOnlyResults,
	})
	repb.RegisterCapabilitiesServer(s.grpc, &capabilityService{answer: capabilities(c.Features, limits)})
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s, nil
}

// streamWorkers is how many goroutines outlive their call: a new one grows its stack several times in each. Calls that find
// all of them busy have one of their own.
const streamWorkers = 32

// options shape the gRPC server for few clients on the same machine that move much data.
func options(buffers *buffer.Pool, a *around) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(&codec{pool: buffers}),
		experimental.BufferPool(buffers),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.UnaryInterceptor(a.unary),
		grpc.StreamInterceptor(a.stream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(2 * maxMessage),
		grpc.InitialWindowSize(4 << 20),
		grpc.InitialConnWindowSize(16 << 20),
		grpc.ReadBufferSize(128 << 10),
		grpc.WriteBufferSize(64 << 10),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
	}
}

// contentDesc is the generated description with the hot calls' handlers replaced.
func contentDesc() *grpc.ServiceDesc {
	d := repb.ContentAddressableStorage_ServiceDesc
	d.Methods = slices.Clone(d.Methods)
	for i := range d.Methods {
		switch m := &d.Methods[i]; m.MethodName {
		case "FindMissingBlobs":
			m.Handler = handleFind
		case "BatchUpdateBlobs":
			m.Handler = handleUpdate
		case "BatchReadBlobs":
			m.Handler = handleRead
		}
	}
	return &d
}

// streamDesc describes ByteStream with this package's handlers.
func streamDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "google.bytestream.ByteStream",
		HandlerType: (*bspb.ByteStreamServer)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "QueryWriteStatus", Handler: handleQuery}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Read", Handler: handleStreamRead, ServerStreams: true},
			{StreamName: "Write", Handler: handleStreamWrite, ClientStreams: true},
		},
		Metadata: "google/bytestream/bytestream.proto",
	}
}

// Registrar takes further services, before Serve.
func (s *Server) Registrar() grpc.ServiceRegistrar { return s.grpc }

// Listen adds a listener and gives its address: network is "tcp" with a loopback address, or "unix".
func (s *Server) Listen(network, address string) (net.Addr, error) {
	if network == "tcp" {
		if err := checkLoopback(address); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s %s: %w", network, address, err)
	}
	s.Add(l)
	return l.Addr(), nil
}

// Add takes a listener that is open already; Shutdown closes it.
func (s *Server) Add(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, l)
}

// checkLoopback refuses addresses that other machines reach: there is no authentication.
func checkLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", address, err)
	}
	if host == "localhost" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return fmt.Errorf("listen on %q: not a loopback address", address)
	}
	return nil
}

// Serve serves all listeners until Shutdown; then it gives nil.
func (s *Server) Serve() error {
	s.mu.Lock()
	listeners := slices.Clone(s.listeners)
	s.mu.Unlock()
	if len(listeners) == 0 {
		return errors.New("serve: no listeners")
	}
	ends := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ends <- s.grpc.Serve(l) }()
	}
	var failed error
	for range listeners {
		if err := <-ends; err != nil && !errors.Is(err, grpc.ErrServerStopped) && failed == nil {
			failed = fmt.Errorf("serve: %w", err)
			s.grpc.Stop()
		}
	}
	return failed
}

// Shutdown takes no more calls and waits for those that run, until ctx ends; then it breaks them
// off. Whatever way, all calls have returned and partial uploads are gone when it returns. The error
// says whether calls were broken off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.health.Shutdown()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		err = fmt.Errorf("drain: %w", context.Cause(ctx))
		s.grpc.Stop()
		<-drained
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		l.Close() // those never served; the others are closed already
	}
	s.uploads.Close()
	s.packer.close()
	return err
}
