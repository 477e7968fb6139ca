package reapi

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/bazelbuild/remote-apis/build/bazel/semver"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Features is what of the endpoint depends on how the node is made and configured. The rest of the
// capabilities follows from this package.
type Features struct {
	// Execution tells whether actions are executed.
	Execution bool
	// MinPriority and MaxPriority are the range of priorities that make a difference, the most
	// urgent first. Used when Execution is set.
	MinPriority, MaxPriority int32
	// NodeProperties are the names of the node properties that are honoured.
	NodeProperties []string
	// AbsoluteSymlinks tells whether symlinks with absolute targets are accepted.
	AbsoluteSymlinks bool
	// ReadOnlyResults refuses UpdateActionResult.
	ReadOnlyResults bool
}

// The newest version of the API that is served; the oldest is its first release, 2.0.
const highMinor = 13

// capabilityService serves Capabilities.
type capabilityService struct {
	repb.UnsafeCapabilitiesServer
	answer *repb.ServerCapabilities
}

// GetCapabilities implements Capabilities; all instances are alike.
func (s *capabilityService) GetCapabilities(_ context.Context, q *repb.GetCapabilitiesRequest) (*repb.ServerCapabilities, error) {
	if err := CheckInstance(q.InstanceName); err != nil {
		return nil, err
	}
	return s.answer, nil
}

// capabilities tells what works and nothing else.
func capabilities(f Features, l Limits) *repb.ServerCapabilities {
	var functions []repb.DigestFunction_Value
	for _, fn := range digest.Functions() {
		functions = append(functions, fn.Proto())
	}
	c := &repb.ServerCapabilities{
		CacheCapabilities: cacheCapabilities(f, l, functions),
		LowApiVersion:     &semver.SemVer{Major: 2, Minor: 0},
		HighApiVersion:    &semver.SemVer{Major: 2, Minor: highMinor},
	}
	if f.Execution {
		c.ExecutionCapabilities = &repb.ExecutionCapabilities{
			DigestFunction:  functions[0],
			DigestFunctions: functions,
			ExecEnabled:     true,
			ExecutionPriorityCapabilities: &repb.PriorityCapabilities{Priorities: []*repb.PriorityCapabilities_PriorityRange{
				{MinPriority: f.MinPriority, MaxPriority: f.MaxPriority},
			}},
			SupportedNodeProperties: f.NodeProperties,
		}
	}
	return c
}

func cacheCapabilities(f Features, l Limits, functions []repb.DigestFunction_Value) *repb.CacheCapabilities {
	var compressors []repb.Compressor_Value
	for _, c := range Compressors() {
		compressors = append(compressors, c.Proto())
	}
	symlinks := repb.SymlinkAbsolutePathStrategy_DISALLOWED
	if f.AbsoluteSymlinks {
		symlinks = repb.SymlinkAbsolutePathStrategy_ALLOWED
	}
	return &repb.CacheCapabilities{
		DigestFunctions:                 functions,
		ActionCacheUpdateCapabilities:   &repb.ActionCacheUpdateCapabilities{UpdateEnabled: !f.ReadOnlyResults},
		MaxBatchTotalSizeBytes:          l.MaxBatch,
		MaxCasBlobSizeBytes:             l.MaxBlob,
		SymlinkAbsolutePathStrategy:     symlinks,
		SupportedCompressors:            compressors,
		SupportedBatchUpdateCompressors: compressors,
		SplitBlobSupport:                true,
		SpliceBlobSupport:               true,
		FastCdc_2020Params:              &repb.FastCdc2020Params{AvgChunkSizeBytes: uint64(l.ChunkAverage)},
	}
}
