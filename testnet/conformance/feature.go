package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Feature is something a conforming server may leave out.
type Feature string

// The features. Those of Capabilities are read there and must then work; those without a place in
// Capabilities count as offered unless their method answers UNIMPLEMENTED.
const (
	Cache        Feature = "cache"         // ServerCapabilities.cache_capabilities
	CacheUpdates Feature = "cache-updates" // ActionCacheUpdateCapabilities.update_enabled
	Execution    Feature = "execution"     // ExecutionCapabilities.exec_enabled
	Zstd         Feature = "zstd"          // CacheCapabilities.supported_compressors
	Deflate      Feature = "deflate"       // CacheCapabilities.supported_compressors
	BatchZstd    Feature = "batch-zstd"    // CacheCapabilities.supported_batch_update_compressors
	Blake3       Feature = "blake3"        // CacheCapabilities.digest_functions
	Split        Feature = "split"         // CacheCapabilities.split_blob_support
	Splice       Feature = "splice"        // CacheCapabilities.splice_blob_support
	BlobLimit    Feature = "blob-limit"    // CacheCapabilities.max_cas_blob_size_bytes
	Operations   Feature = "operations"    // google.longrunning.Operations
	Fetch        Feature = "fetch"         // build.bazel.remote.asset.v1.Fetch
	Push         Feature = "push"          // build.bazel.remote.asset.v1.Push
	KeepAlive    Feature = "keep-alive"    // Options.KeepAlive, since the protocol names no interval
	LogStream    Feature = "logstream"     // build.bazel.remote.logstream.v1.LogStreamService
)

// Features lists every feature.
func Features() []Feature {
	return []Feature{Cache, CacheUpdates, Execution, Zstd, Deflate, BatchZstd, Blake3, Split, Splice, BlobLimit,
		Operations, Fetch, Push, KeepAlive, LogStream}
}

// ParseFeatures reads a comma-separated list; "all" stands for every feature.
func ParseFeatures(list string) ([]Feature, error) {
	var fs []Feature
	for name := range strings.SplitSeq(list, ",") {
		switch {
		case name == "":
		case name == "all":
			fs = append(fs, Features()...)
		case slices.Contains(Features(), Feature(name)):
			fs = append(fs, Feature(name))
		default:
			return nil, fmt.Errorf("feature %q is unknown, want some of %v", name, Features())
		}
	}
	return fs, nil
}

// advertised fills s.absent from the capabilities.
func (s *Subject) advertised() {
	cache, exec := s.Capabilities.GetCacheCapabilities(), s.Capabilities.GetExecutionCapabilities()
	for f, offered := range map[Feature]bool{
		Cache:        cache != nil,
		CacheUpdates: cache.GetActionCacheUpdateCapabilities().GetUpdateEnabled(),
		Execution:    exec.GetExecEnabled(),
		Zstd:         slices.Contains(cache.GetSupportedCompressors(), repb.Compressor_ZSTD),
		Deflate:      slices.Contains(cache.GetSupportedCompressors(), repb.Compressor_DEFLATE),
		BatchZstd:    slices.Contains(cache.GetSupportedBatchUpdateCompressors(), repb.Compressor_ZSTD),
		Blake3:       slices.Contains(cache.GetDigestFunctions(), repb.DigestFunction_BLAKE3),
		Split:        cache.GetSplitBlobSupport(),
		Splice:       cache.GetSpliceBlobSupport(),
		BlobLimit:    cache.GetMaxCasBlobSizeBytes() > 0,
	} {
		if !offered {
			s.absent[f] = "its capabilities do not advertise it"
		}
	}
}

// probe fills s.absent for the services that have no place in the capabilities.
func (s *Subject) probe(ctx context.Context) {
	_, err := s.Operations.GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: s.unknownOperation()})
	s.unless(Operations, err)
	_, err = s.Fetch.FetchBlob(ctx, &assetpb.FetchBlobRequest{InstanceName: s.Instance})
	s.unless(Fetch, err)
	_, err = s.Push.PushBlob(ctx, &assetpb.PushBlobRequest{InstanceName: s.Instance})
	s.unless(Push, err)
	_, err = s.Logs.CreateLogStream(ctx, &logpb.CreateLogStreamRequest{Parent: s.Instance})
	s.unless(LogStream, err)
}

func (s *Subject) unless(f Feature, err error) {
	if status.Code(err) == codes.Unimplemented {
		s.absent[f] = "its method answers UNIMPLEMENTED"
	}
}
