package wrong

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"
	"github.com/bazelbuild/remote-apis/build/bazel/semver"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Limits the server advertises, in bytes.
const (
	batchLimit = 4<<20 - 64<<10 // leaves room for the rest of a message
	blobLimit  = 1 << 30
)

// Server keeps everything in memory. It is safe for concurrent use.
type Server struct {
	repb.UnimplementedContentAddressableStorageServer
	repb.UnimplementedActionCacheServer
	repb.UnimplementedCapabilitiesServer
	bspb.UnimplementedByteStreamServer
	repb.UnimplementedExecutionServer
	longrunningpb.UnimplementedOperationsServer
	assetpb.UnimplementedFetchServer
	assetpb.UnimplementedPushServer
	logpb.UnimplementedLogStreamServiceServer

	defect Defect
	temp   string // directory of the executions

	life    context.Context // of the executions; stop ends it
	end     context.CancelFunc
	running sync.WaitGroup
	slots   chan struct{} // holds a token for each execution that runs
	ops     operations

	mu      sync.Mutex // guards what follows
	blobs   map[digest.Digest][]byte
	uploads map[string][]byte // what interrupted uploads have sent, by resource name
	results map[digest.Digest]*repb.ActionResult
	spoiled map[digest.Digest]bool // what IncompleteIsForgotten and MissingRemembered remember
	assets  map[string]asset
	logs    map[string]*logStream // by public name
	calls   int                   // of TransientWithoutRetry alone
	crashed bool                  // of CrashesAfterBomb alone
}

// newServer makes a server that keeps its executions' directories in temp.
func newServer(d Defect, temp string) *Server {
	s := &Server{
		defect: d, temp: temp, slots: make(chan struct{}, slots), blobs: map[digest.Digest][]byte{}, uploads: map[string][]byte{},
		results: map[digest.Digest]*repb.ActionResult{}, spoiled: map[digest.Digest]bool{},
		assets: map[string]asset{}, logs: map[string]*logStream{},
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Start serves a new server, with one defect or None, on a free port of the loopback interface.
// stop ends it and all its executions, and waits.
func Start(d Defect) (endpoint string, stop func(), err error) {
	temp, err := os.MkdirTemp("", "wrong")
	if err != nil {
		return "", nil, fmt.Errorf("make a directory for executions: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listen on loopback: %w", err)
	}
	s := newServer(d, temp)
	g := grpc.NewServer(grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.streaming))
	s.register(g)
	done := make(chan struct{})
	go func() { // ends when stop closes the listener
		defer close(done)
		_ = g.Serve(l) // Stop is what ends it
	}()
	return "grpc://" + l.Addr().String(), func() {
		s.end()
		g.Stop()
		<-done
		s.running.Wait()
		_ = os.RemoveAll(temp) // what stays is in the temporary directory
	}, nil
}

func (s *Server) register(g *grpc.Server) {
	repb.RegisterContentAddressableStorageServer(g, s)
	repb.RegisterActionCacheServer(g, s)
	repb.RegisterCapabilitiesServer(g, s)
	bspb.RegisterByteStreamServer(g, s)
	repb.RegisterExecutionServer(g, s)
	longrunningpb.RegisterOperationsServer(g, s)
	assetpb.RegisterFetchServer(g, s)
	assetpb.RegisterPushServer(g, s)
	logpb.RegisterLogStreamServiceServer(g, s)
}

// has reports whether the server has the defect d.
func (s *Server) has(d Defect) bool { return s.defect == d }

func (s *Server) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := s.checkMetadata(ctx); err != nil {
		return nil, err
	}
	if s.has(TransientWithoutRetry) && s.busy() {
		return nil, status.Error(codes.Unavailable, "busy")
	}
	if named, ok := req.(interface{ GetInstanceName() string }); ok {
		if err := s.checkInstance(named.GetInstanceName()); err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}

// busy is true of every tenth call after the first fifty; of TransientWithoutRetry alone.
func (s *Server) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	return s.calls > 50 && s.calls%10 == 0
}

func (s *Server) streaming(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := s.checkMetadata(stream.Context()); err != nil {
		return err
	}
	return next(srv, stream)
}

func (s *Server) checkMetadata(ctx context.Context) error {
	for _, v := range metadata.ValueFromIncomingContext(ctx, "build.bazel.remote.execution.v2.requestmetadata-bin") {
		if s.has(MetadataRefused) {
			return status.Error(codes.PermissionDenied, "request metadata")
		}
		if err := proto.Unmarshal([]byte(v), &repb.RequestMetadata{}); err != nil && s.has(MetadataRequired) {
			return status.Errorf(codes.InvalidArgument, "request metadata: %v", err)
		}
	}
	return nil
}

// GetCapabilities tells what the server offers.
func (s *Server) GetCapabilities(context.Context, *repb.GetCapabilitiesRequest) (*repb.ServerCapabilities, error) {
	functions := []repb.DigestFunction_Value{repb.DigestFunction_SHA256, repb.DigestFunction_BLAKE3}
	zstd := []repb.Compressor_Value{repb.Compressor_ZSTD}
	priorities := &repb.PriorityCapabilities{Priorities: []*repb.PriorityCapabilities_PriorityRange{{MinPriority: -100, MaxPriority: 100}}}
	caps := &repb.ServerCapabilities{
		CacheCapabilities: &repb.CacheCapabilities{
			DigestFunctions: functions, ActionCacheUpdateCapabilities: &repb.ActionCacheUpdateCapabilities{UpdateEnabled: true},
			MaxBatchTotalSizeBytes: batchLimit, MaxCasBlobSizeBytes: blobLimit,
			SymlinkAbsolutePathStrategy: repb.SymlinkAbsolutePathStrategy_ALLOWED,
			SupportedCompressors:        zstd, SupportedBatchUpdateCompressors: zstd,
			SplitBlobSupport: true, SpliceBlobSupport: true,
			FastCdc_2020Params: &repb.FastCdc2020Params{AvgChunkSizeBytes: averageChunk},
		},
		LowApiVersion: &semver.SemVer{Major: 2}, HighApiVersion: &semver.SemVer{Major: 2, Minor: 13},
		ExecutionCapabilities: s.executionCapabilities(functions, priorities),
	}
	s.overstate(caps)
	return caps, nil
}

func (s *Server) executionCapabilities(fs []repb.DigestFunction_Value, p *repb.PriorityCapabilities) *repb.ExecutionCapabilities {
	caps := &repb.ExecutionCapabilities{
		DigestFunction: fs[0], DigestFunctions: fs, ExecutionPriorityCapabilities: p, ExecEnabled: true,
		SupportedNodeProperties: nodeProperties(),
	}
	switch s.defect {
	case FunctionsUnset:
		caps.DigestFunctions = nil
	case ExecutionFunctionsBeyond:
		caps.DigestFunctions = append([]repb.DigestFunction_Value{repb.DigestFunction_MD5}, fs...)
	case PrioritiesUnset:
		caps.ExecutionPriorityCapabilities = nil
	}
	return caps
}

// overstate applies the defects of what is advertised about the cache.
func (s *Server) overstate(caps *repb.ServerCapabilities) {
	cache := caps.CacheCapabilities
	switch s.defect {
	case CapabilitiesEmpty:
		caps.CacheCapabilities, caps.ExecutionCapabilities = nil, nil
	case BatchLimitZero:
		cache.MaxBatchTotalSizeBytes = 0
	case BatchLimitOverstated:
		cache.MaxBatchTotalSizeBytes = 16 << 20
	case OverstatedCompressor:
		cache.SupportedCompressors = append(cache.SupportedCompressors, repb.Compressor_BROTLI)
	case OverstatedDeflate:
		cache.SupportedCompressors = append(cache.SupportedCompressors, repb.Compressor_DEFLATE)
	case VersionsUnset:
		caps.LowApiVersion, caps.HighApiVersion = nil, nil
	case StrategyUnset:
		cache.SymlinkAbsolutePathStrategy = repb.SymlinkAbsolutePathStrategy_UNKNOWN
	case FunctionsRepeated:
		cache.DigestFunctions = append(cache.DigestFunctions, repb.DigestFunction_UNKNOWN)
	case FastCDCOutOfRange:
		cache.FastCdc_2020Params.AvgChunkSizeBytes = 64 << 20
	}
}
