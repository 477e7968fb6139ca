package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/collect"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	usagev1 "github.com/buildmesh/buildmesh/proto/usage/v1"
)

// errCancelled says that the sandbox saw the end of a context that has no cause of its own.
var errCancelled = errors.New("cancelled")

// TimeoutError ends an action that ran longer than it may. It is context.DeadlineExceeded to errors.Is.
type TimeoutError struct {
	Timeout time.Duration
	Asked   bool // by the action, else it is this machine's default
}

func (e *TimeoutError) Error() string {
	if e.Asked {
		return fmt.Sprintf("action ran longer than its timeout of %v", e.Timeout)
	}
	return fmt.Sprintf("action ran longer than %v, the default timeout here", e.Timeout)
}

// Is reports that a timeout is a deadline exceeded.
func (e *TimeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// The resources a ResourceError may name.
const (
	Memory  = "memory"
	Disk    = "disk space"
	Output  = "stdout and stderr"
	Outputs = "outputs"
)

// ResourceError ends an action that used more of something than it may.
type ResourceError struct {
	Resource string // Memory, Disk, Output or Outputs
	Limit    int64  // bytes; 0 when the machine itself had no more
	Used     int64  // bytes as far as measured, 0 when unknown
	Retried  bool   // with a higher limit, in vain
	Err      error  // the reason, may be nil
}

func (e *ResourceError) Error() string {
	text := "action needs more " + e.Resource + " than this machine has"
	if e.Limit > 0 {
		text = fmt.Sprintf("action needs more than the %s of %s it may use", sizeText(e.Limit), e.Resource)
	}
	if e.Used > e.Limit {
		text += fmt.Sprintf(" (it used %s)", sizeText(e.Used))
	}
	if e.Retried {
		text += ", after a second try with more"
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// sizeText is a size for people.
func sizeText(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d bytes", bytes)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

// Unwrap gives the reason.
func (e *ResourceError) Unwrap() error { return e.Err }

// finish stores what the run left and makes the outcome. When the run reached a limit, that is the
// error, and whatever cannot be collected is left out.
func (e *execution) finish(ctx context.Context, s sandbox.Result) (*flight.Outcome, error) {
	limit := e.limitError(s)
	e.meta.OutputUploadStartTimestamp = timestamppb.Now()
	result, err := e.outputs(ctx, s)
	if err != nil && limit == nil {
		return nil, err
	}
	if result == nil {
		result = &repb.ActionResult{}
	}
	if err := e.streams(ctx, result, s); err != nil && limit == nil {
		return nil, err
	}
	now := timestamppb.Now()
	e.meta.OutputUploadCompletedTimestamp, e.meta.WorkerCompletedTimestamp = now, now
	usage, err := anypb.New(e.usage(s))
	if err != nil {
		return nil, fmt.Errorf("encode resource usage: %w", err)
	}
	e.meta.AuxiliaryMetadata = append(e.meta.AuxiliaryMetadata, usage)
	result.ExitCode, result.ExecutionMetadata = int32(s.ExitCode), e.meta
	return &flight.Outcome{Result: result, Message: e.message(s)}, limit
}

// outputs collects the output files.
func (e *execution) outputs(ctx context.Context, s sandbox.Result) (*repb.ActionResult, error) {
	source := collect.Source{
		Upper: s.Upper, Input: e.tree, Lowers: e.inputLayers(), InputTime: tree.ModTime,
		InputMode: modesOf(e.action).Mode(false), Scratch: e.scratch[len(e.scratch)-1],
	}
	if s.Merged {
		source.Input = nil
	}
	if e.image != nil {
		source.Below = beside
	}
	result, err := collect.Outputs(ctx, e.into, e.action, source, e.runner.opt.Collect)
	if errors.Is(err, collect.ErrTooLarge) {
		return nil, &ResourceError{Resource: Outputs, Err: err}
	}
	if err != nil {
		return nil, e.explain(ctx, diskError(err))
	}
	return result, nil
}

// diskError names a full disk of ours for what it is.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &ResourceError{Resource: Disk, Err: err}
	}
	return err
}

// streams stores stdout and stderr from their files. An empty one has no digest in the result.
func (e *execution) streams(ctx context.Context, result *repb.ActionResult, s sandbox.Result) error {
	for _, f := range []struct {
		path string
		to   **repb.Digest
	}{{s.StdoutPath, &result.StdoutDigest}, {s.StderrPath, &result.StderrDigest}} {
		info, err := os.Lstat(f.path)
		if err != nil {
			return fmt.Errorf("read output stream: %w", err)
		}
		if info.Size() == 0 {
			continue
		}
		d, err := e.into.PutFile(ctx, e.action.Digest.Function(), f.path)
		if err != nil {
			return fmt.Errorf("store output stream: %w", diskError(err))
		}
		*f.to = d.Proto()
	}
	return nil
}

// limitError is the error of a run that did not end by itself.
func (e *execution) limitError(s sandbox.Result) error {
	o := &e.runner.opt
	switch s.Reason {
	case sandbox.TimedOut:
		return &TimeoutError{Timeout: e.timeout(), Asked: e.action.Timeout > 0}
	case sandbox.OutOfMemory:
		r := &ResourceError{Resource: Memory, Limit: e.memory, Retried: e.retries > 0}
		if r.Limit == 0 { // else it used as much as it could
			r.Used = s.Usage.MaxRSS
		}
		return r
	case sandbox.DiskFull:
		return &ResourceError{Resource: Disk, Limit: o.Disk, Used: s.Usage.ScratchBytes}
	case sandbox.OutputTooLarge:
		return &ResourceError{Resource: Output, Limit: o.Output, Used: s.Usage.OutputBytes}
	default:
		return nil
	}
}

// message tells a person where and how the action ended.
func (e *execution) message(s sandbox.Result) string {
	text := fmt.Sprintf("ran on %s, sandbox tier %v", e.runner.opt.Worker, e.runner.box.Tier())
	if s.Signal != 0 {
		text += ", killed by " + syscall.Signal(s.Signal).String()
	}
	if e.retries > 0 {
		text += fmt.Sprintf(", tried again with %s of memory", sizeText(e.memory))
	}
	return text
}

func (e *execution) usage(s sandbox.Result) *usagev1.ResourceUsage {
	a := e.action
	inputs := e.tree.Root().Totals()
	return &usagev1.ResourceUsage{
		UserTime: durationpb.New(s.Usage.User), SystemTime: durationpb.New(s.Usage.System),
		MaxResidentBytes: s.Usage.MaxRSS, WrittenBytes: s.Usage.ScratchBytes + s.Usage.OutputBytes,
		ReservedCores: a.Platform.Cores, ReservedMemoryBytes: a.Platform.MemoryBytes, Retries: e.retries,
		Tier: e.runner.box.Tier().String(), Executor: e.runner.opt.Worker,
		InputFiles: inputs.Files, InputBytes: inputs.Bytes,
	}
}
