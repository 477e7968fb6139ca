package reapi

import (
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

func TestActionResultComesBack(t *testing.T) {
	for _, fn := range digest.Functions() {
		e := start(t)
		action := fn.Of([]byte("action"))
		_, err := e.cache.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: action.Proto(), DigestFunction: fn.Proto()})
		wantCode(t, err, codes.NotFound)
		put, err := e.cache.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{
			ActionDigest: action.Proto(), DigestFunction: fn.Proto(), ActionResult: aResult(),
		})
		if err != nil || !proto.Equal(put, aResult()) {
			t.Errorf("%s: %v, %v", fn, put, err)
		}
		got, err := e.cache.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: action.Proto(), DigestFunction: fn.Proto()})
		if err != nil || !proto.Equal(got, aResult()) {
			t.Errorf("%s: %v, %v", fn, got, err)
		}
		wrong := digest.New(fn, action.Hash(), action.Size()+1)
		_, err = e.cache.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: wrong.Proto(), DigestFunction: fn.Proto()})
		wantCode(t, err, codes.NotFound)
	}
}

func TestResultIsNeverEmpty(t *testing.T) {
	e := start(t)
	q := &repb.UpdateActionResultRequest{ActionDigest: abc.Proto(), ActionResult: &repb.ActionResult{}}
	if _, err := e.cache.UpdateActionResult(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	got, err := e.cache.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: abc.Proto()})
	if err != nil || got.ExecutionMetadata.GetWorker() != "ana" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestUpdateRefuses(t *testing.T) {
	e := start(t)
	for what, q := range map[string]*repb.UpdateActionResultRequest{
		"no result":  {ActionDigest: abc.Proto()},
		"no action":  {ActionResult: aResult()},
		"bad action": {ActionDigest: &repb.Digest{Hash: "x"}, ActionResult: aResult()},
		"failure":    {ActionDigest: abc.Proto(), ActionResult: &repb.ActionResult{ExitCode: 1}},
		"instance":   {ActionDigest: abc.Proto(), ActionResult: aResult(), InstanceName: "a//b"},
		"function":   {ActionDigest: abc.Proto(), ActionResult: aResult(), DigestFunction: repb.DigestFunction_VSO},
	} {
		_, err := e.cache.UpdateActionResult(t.Context(), q)
		t.Log(what)
		wantCode(t, err, codes.InvalidArgument)
	}
	if len(e.results.m) != 0 {
		t.Error("a refused result is stored")
	}
}

func TestReadOnlyResults(t *testing.T) {
	e := start(t, func(c *Config) { c.Features.ReadOnlyResults = true })
	_, err := e.cache.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: abc.Proto(), ActionResult: aResult()})
	wantCode(t, err, codes.PermissionDenied)
	c, err := e.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{})
	if err != nil || c.CacheCapabilities.ActionCacheUpdateCapabilities.UpdateEnabled {
		t.Errorf("%v, %v", c, err)
	}
}

func TestInlining(t *testing.T) {
	e := start(t, func(c *Config) { c.Limits.MaxBatch = 10_000 })
	out, errs := e.put(t, digest.SHA256, []byte("out")), e.put(t, digest.SHA256, []byte("err"))
	small, large := e.put(t, digest.SHA256, []byte("small")), e.put(t, digest.SHA256, content(10_000, 1))
	stored := &repb.ActionResult{
		StdoutDigest: out.Proto(), StderrDigest: errs.Proto(),
		OutputFiles: []*repb.OutputFile{
			{Path: "large", Digest: large.Proto()}, {Path: "small", Digest: small.Proto()}, {Path: "gone", Digest: abc.Proto()},
			{Path: "other", Digest: small.Proto()},
		},
		ExecutionMetadata: &repb.ExecutedActionMetadata{Worker: "ana"},
	}
	e.results.m[abc] = stored
	before := proto.CloneOf(stored)
	got, err := e.cache.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: abc.Proto()})
	if err != nil || !proto.Equal(got, stored) {
		t.Errorf("nothing asked: %v, %v", got, err)
	}
	got, err = e.cache.GetActionResult(t.Context(), &repb.GetActionResultRequest{
		ActionDigest: abc.Proto(), InlineStdout: true, InlineStderr: true, InlineOutputFiles: []string{"large", "small", "gone", "unknown"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(got.StdoutRaw) != "out" || string(got.StderrRaw) != "err" || got.StdoutDigest == nil {
		t.Errorf("stdout %q, stderr %q", got.StdoutRaw, got.StderrRaw)
	}
	for i, want := range []string{"", "small", "", ""} {
		if f := got.OutputFiles[i]; string(f.Contents) != want {
			t.Errorf("file %s: %d bytes", f.Path, len(f.Contents))
		}
	}
	if !proto.Equal(stored, before) {
		t.Error("the shared result was modified")
	}
}

func TestCapabilities(t *testing.T) {
	e := start(t, func(c *Config) {
		c.Features = Features{Execution: true, MinPriority: -5, MaxPriority: 5, NodeProperties: []string{"mtime"}, AbsoluteSymlinks: true}
		c.Limits.MaxBlob = 1 << 40
	})
	c, err := e.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{InstanceName: "any/one"})
	if err != nil {
		t.Fatal(err)
	}
	cc, xc := c.CacheCapabilities, c.ExecutionCapabilities
	if len(cc.DigestFunctions) != 2 || len(xc.DigestFunctions) != 2 || xc.DigestFunction != repb.DigestFunction_SHA256 {
		t.Errorf("functions %v, %v, %v", cc.DigestFunctions, xc.DigestFunctions, xc.DigestFunction)
	}
	if cc.MaxBatchTotalSizeBytes < 4_108_544 || cc.MaxBatchTotalSizeBytes >= 4<<20 || cc.MaxCasBlobSizeBytes != 1<<40 {
		t.Errorf("sizes %d, %d", cc.MaxBatchTotalSizeBytes, cc.MaxCasBlobSizeBytes)
	}
	if c.LowApiVersion.Major != 2 || c.LowApiVersion.Minor != 0 || c.HighApiVersion.Major != 2 || c.HighApiVersion.Minor != 13 {
		t.Errorf("versions %v to %v", c.LowApiVersion, c.HighApiVersion)
	}
	if p := xc.ExecutionPriorityCapabilities.Priorities; !xc.ExecEnabled || len(p) != 1 || p[0].MinPriority != -5 || p[0].MaxPriority != 5 {
		t.Errorf("priorities %v", p)
	}
	if cc.SymlinkAbsolutePathStrategy != repb.SymlinkAbsolutePathStrategy_ALLOWED || !cc.SplitBlobSupport || !cc.SpliceBlobSupport || cc.FastCdc_2020Params.AvgChunkSizeBytes != 1<<10 {
		t.Errorf("%v", cc)
	}
	_, err = e.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{InstanceName: "a/uploads"})
	wantCode(t, err, codes.InvalidArgument)
	if off := capabilities(Features{}, Limits{}); off.ExecutionCapabilities != nil || off.CacheCapabilities.SymlinkAbsolutePathStrategy != repb.SymlinkAbsolutePathStrategy_DISALLOWED {
		t.Errorf("cache only: %v", off)
	}
}
