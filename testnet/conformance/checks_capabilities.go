package conformance

import (
	"context"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/bazelbuild/remote-apis/build/bazel/semver"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// capabilitiesChecks hold of GetCapabilities.
func capabilitiesChecks() []Check {
	cas, exec := []Feature{Cache}, []Feature{Execution}
	return []Check{
		{
			Claim: "an_endpoint_serves_a_cache_or_executes", Run: checkSomething, Source: "rpc GetCapabilities",
			Rule: "the capabilities name at least one of cache and execution",
		},
		{
			Claim: "the_cache_lists_its_digest_functions", Needs: cas, Run: checkCacheFunctions, Source: "CacheCapabilities.digest_functions",
			Rule: "digest_functions is not empty, has no UNKNOWN and no repetition",
		},
		{
			Claim: "execution_sets_digest_function_and_digest_functions", Needs: exec, Run: checkExecFunctions, Source: "ExecutionCapabilities",
			Rule: "the singular field is set, and the plural one contains it: old clients read the one, new ones the other",
		},
		{
			Claim: "execution_functions_are_functions_of_the_cache", Needs: []Feature{Cache, Execution}, Run: checkExecFunctionsCached, Source: "ExecutionCapabilities.digest_functions",
			Rule: "what can be executed can be uploaded",
		},
		{
			Claim: "the_API_range_includes_2_0", Run: checkVersions, Source: "ServerCapabilities.low_api_version, high_api_version",
			Rule: "low and high are set, low is not above high, and low (or the deprecated one) is 2.0: Bazel up to 6 speaks no other",
		},
		{
			Claim: "priorities_are_a_real_range", Needs: exec, Level: Should, Run: checkPriorities, Source: "ExecutionCapabilities.execution_priority_capabilities",
			Rule: "a range is advertised, its minimum is not above its maximum and it holds the default 0",
		},
		{
			Claim: "the_symlink_strategy_is_said", Needs: cas, Level: Should, Run: checkSymlinkStrategy, Source: "SymlinkAbsolutePathStrategy",
			Rule: "ALLOWED or DISALLOWED, not UNKNOWN",
		},
		{
			Claim: "nothing_is_advertised_that_does_not_work", Needs: cas, Run: checkNothingOverstated, Source: "ServerCapabilities",
			Rule: "no method behind an advertised capability answers UNIMPLEMENTED",
		},
		{
			Claim: "GetTree_QueryWriteStatus_and_read_limit_are_implemented", Needs: cas, Run: checkImplemented, Source: "services ContentAddressableStorage and ByteStream",
			Rule: "no capability lets a server leave them out",
		},
	}
}

func checkSomething(_ context.Context, t T, s *Subject) {
	if s.Capabilities.GetCacheCapabilities() == nil && s.Capabilities.GetExecutionCapabilities() == nil {
		t.Errorf("the capabilities have neither cache_capabilities nor execution_capabilities")
	}
}

func wantFunctions(t T, where string, fs []repb.DigestFunction_Value) {
	t.Helper()
	if len(fs) == 0 {
		t.Errorf("%s is empty", where)
	}
	for i, f := range fs {
		if f == repb.DigestFunction_UNKNOWN {
			t.Errorf("%s contains UNKNOWN", where)
		}
		if slices.Contains(fs[:i], f) {
			t.Errorf("%s contains %s twice", where, f)
		}
	}
}

func checkCacheFunctions(_ context.Context, t T, s *Subject) {
	wantFunctions(t, "cache_capabilities.digest_functions", s.Capabilities.CacheCapabilities.DigestFunctions)
}

func checkExecFunctions(_ context.Context, t T, s *Subject) {
	exec := s.Capabilities.ExecutionCapabilities
	wantFunctions(t, "execution_capabilities.digest_functions", exec.DigestFunctions)
	if exec.DigestFunction == repb.DigestFunction_UNKNOWN {
		t.Errorf("execution_capabilities.digest_function is UNKNOWN")
	}
	if !slices.Contains(exec.DigestFunctions, exec.DigestFunction) {
		t.Errorf("execution_capabilities.digest_functions %v lacks digest_function %s", exec.DigestFunctions, exec.DigestFunction)
	}
}

func checkExecFunctionsCached(_ context.Context, t T, s *Subject) {
	for _, f := range s.Capabilities.ExecutionCapabilities.DigestFunctions {
		if !s.advertises(f) {
			t.Errorf("execution advertises %s, the cache does not", f)
		}
	}
}

// order compares versions: negative when a is before b.
func order(a, b *semver.SemVer) int32 {
	if a.GetMajor() != b.GetMajor() {
		return a.GetMajor() - b.GetMajor()
	}
	return a.GetMinor() - b.GetMinor()
}

// earliest is the earliest version advertised, a deprecated one included.
func (s *Subject) earliest() *semver.SemVer {
	low, old := s.Capabilities.LowApiVersion, s.Capabilities.DeprecatedApiVersion
	if old != nil && order(old, low) < 0 {
		return old
	}
	return low
}

func checkVersions(_ context.Context, t T, s *Subject) {
	low, high := s.Capabilities.LowApiVersion, s.Capabilities.HighApiVersion
	if low == nil || high == nil {
		t.Fatalf("low_api_version %v, high_api_version %v: both have to be set", low, high)
	}
	if order(low, high) > 0 {
		t.Errorf("low_api_version %v is above high_api_version %v", low, high)
	}
	if earliest := s.earliest(); order(earliest, &semver.SemVer{Major: 2}) > 0 || high.Major < 2 {
		t.Errorf("the range %v to %v does not hold 2.0", earliest, high)
	}
}

func checkPriorities(_ context.Context, t T, s *Subject) {
	ranges := s.Capabilities.ExecutionCapabilities.GetExecutionPriorityCapabilities().GetPriorities()
	holdsDefault := false
	for _, r := range ranges {
		if r.MinPriority > r.MaxPriority {
			t.Errorf("the priority range %v is upside down", r)
		}
		holdsDefault = holdsDefault || r.MinPriority <= 0 && r.MaxPriority >= 0 && r.MinPriority < r.MaxPriority
	}
	if !holdsDefault {
		t.Errorf("the execution priorities are %v, want a range around 0", ranges)
	}
}

func checkSymlinkStrategy(_ context.Context, t T, s *Subject) {
	if s.Capabilities.CacheCapabilities.SymlinkAbsolutePathStrategy == repb.SymlinkAbsolutePathStrategy_UNKNOWN {
		t.Errorf("symlink_absolute_path_strategy is UNKNOWN")
	}
}

// wantOffered fails when a promised method is not implemented.
func wantOffered(t T, err error, method, promise string) {
	t.Helper()
	if status.Code(err) == codes.Unimplemented {
		t.Errorf("%s answers UNIMPLEMENTED, though %s: %v", method, promise, err)
	}
}

func checkNothingOverstated(ctx context.Context, t T, s *Subject) {
	if _, absent := s.absent[Execution]; !absent {
		stream, err := s.Execution.Execute(ctx, &repb.ExecuteRequest{InstanceName: s.Instance, ActionDigest: s.Unseen()})
		if err == nil {
			_, err = stream.Recv()
		}
		wantOffered(t, err, "Execute", "exec_enabled is true")
	}
	if _, absent := s.absent[CacheUpdates]; !absent {
		_, err := s.Cache.UpdateActionResult(ctx, &repb.UpdateActionResultRequest{InstanceName: s.Instance})
		wantOffered(t, err, "UpdateActionResult", "update_enabled is true")
	}
	if _, absent := s.absent[Split]; !absent {
		for _, f := range s.chunkForms() {
			_, _, err := f.split(ctx, s.Unseen())
			wantOffered(t, err, "the splitting one of "+f.name, "split_blob_support is true")
		}
	}
	if _, absent := s.absent[Splice]; !absent {
		for _, f := range s.chunkForms() {
			_, err := f.splice(ctx, s.Unseen(), []*repb.Digest{s.Unseen()})
			wantOffered(t, err, "the splicing one of "+f.name, "splice_blob_support is true")
		}
	}
	d := s.Put(ctx, t, s.Text(100))[0]
	for _, c := range s.Capabilities.GetCacheCapabilities().GetSupportedCompressors() {
		if name := compressorSegment(c); name != "" {
			if _, err := s.Read(ctx, s.inst("compressed-blobs/"+name+"/"+s.path(d)), 0, 0); err != nil {
				t.Errorf("a read compressed with %s, which is advertised: %v", name, err)
			}
		}
	}
}

// compressorSegment is c in a resource name, empty for no compression.
func compressorSegment(c repb.Compressor_Value) string {
	return map[repb.Compressor_Value]string{
		repb.Compressor_ZSTD: "zstd", repb.Compressor_DEFLATE: "deflate", repb.Compressor_BROTLI: "brotli",
	}[c]
}

func checkImplemented(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Text(100))[0]
	_, err := s.tree(ctx, &repb.GetTreeRequest{RootDigest: s.Empty()})
	wantOffered(t, err, "GetTree", "it is not optional")
	_, err = s.Bytes.QueryWriteStatus(ctx, &bspb.QueryWriteStatusRequest{ResourceName: s.WriteName(d)})
	wantOffered(t, err, "QueryWriteStatus", "it is not optional")
	if got, err := s.Read(ctx, s.ReadName(d), 0, 10); err != nil || len(got) != 10 {
		t.Errorf("ByteStream.Read with read_limit 10: %d bytes, %v", len(got), err)
	}
}
