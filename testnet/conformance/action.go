//lint:file-ignore SA1019 fields that are deprecated are still sent by clients, and examined here

package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// searchPath is the PATH of the suite's commands.
const searchPath = "/usr/local/bin:/usr/bin:/bin"

// Shell is a command that runs script in /bin/sh and has output_paths.
func (s *Subject) Shell(script string, outputs ...string) *repb.Command {
	slices.Sort(outputs)
	return &repb.Command{
		Arguments:            []string{"/bin/sh", "-c", script},
		EnvironmentVariables: []*repb.Command_EnvironmentVariable{{Name: "PATH", Value: searchPath}},
		OutputPaths:          outputs,
		Platform:             &repb.Platform{Properties: s.platform},
	}
}

// Action is a new action of command on an input root; no other has its digest. It is not uploaded.
func (s *Subject) Action(t T, command *repb.Command, root *repb.Digest) *repb.Action {
	t.Helper()
	return &repb.Action{
		CommandDigest: s.Digest(wire(t, command)), InputRootDigest: root, Salt: s.Blob(16),
		Platform: proto.CloneOf(command.Platform),
	}
}

// Root uploads an input root of plain files by path, the directories between included. A path that
// ends in "/" is an empty directory; one that ends in "*" is executable.
func (s *Subject) Root(ctx context.Context, t T, files map[string]string) *repb.Digest {
	t.Helper()
	dirs := map[string]*repb.Directory{"": {}}
	var make func(string) *repb.Directory
	make = func(dir string) *repb.Directory {
		if dir == "." {
			dir = ""
		}
		if dirs[dir] == nil {
			dirs[dir] = &repb.Directory{}
			make(path.Dir(dir))
		}
		return dirs[dir]
	}
	var blobs [][]byte
	for name, content := range files {
		if empty, isDir := strings.CutSuffix(name, "/"); isDir {
			make(empty)
			continue
		}
		name, executable := strings.CutSuffix(name, "*")
		dir := make(path.Dir(name))
		dir.Files = append(dir.Files, &repb.FileNode{Name: path.Base(name), Digest: s.Digest([]byte(content)), IsExecutable: executable})
		if content != "" {
			blobs = append(blobs, []byte(content))
		}
	}
	if len(blobs) > 0 {
		s.Put(ctx, t, blobs...)
	}
	return s.putDirs(ctx, t, dirs)
}

// putDirs links directories by path, deepest first, and uploads them.
func (s *Subject) putDirs(ctx context.Context, t T, dirs map[string]*repb.Directory) *repb.Digest {
	t.Helper()
	var names []string
	for name := range dirs {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return depth(b) - depth(a) })
	for _, name := range names {
		dir := dirs[name]
		slices.SortFunc(dir.Files, func(a, b *repb.FileNode) int { return strings.Compare(a.Name, b.Name) })
		slices.SortFunc(dir.Directories, func(a, b *repb.DirectoryNode) int { return strings.Compare(a.Name, b.Name) })
		d := s.PutMessage(ctx, t, dir)
		if name == "" {
			return d
		}
		parent := path.Dir(name)
		if parent == "." {
			parent = ""
		}
		dirs[parent].Directories = append(dirs[parent].Directories, &repb.DirectoryNode{Name: path.Base(name), Digest: d})
	}
	return nil // not reached: the root has the name ""
}

func depth(name string) int {
	if name == "" {
		return 0
	}
	return 1 + strings.Count(name, "/")
}

// Run is what came of one execution.
type Run struct {
	Operations []*longrunningpb.Operation // in the order received
	Response   *repb.ExecuteResponse      // of the operation that is done
	Err        error                      // the gRPC status the stream ended with
}

// Code is the code of the run wherever it stands: in the stream's status or in the response's.
func (r Run) Code() codes.Code {
	if r.Err != nil {
		return status.Code(r.Err)
	}
	return codes.Code(r.Response.GetStatus().GetCode())
}

// Why is the message that goes with Code.
func (r Run) Why() string {
	if r.Err != nil {
		return r.Err.Error()
	}
	return r.Response.GetStatus().GetMessage()
}

// Execute uploads command and action and executes it to its end.
func (s *Subject) Execute(ctx context.Context, t T, command *repb.Command, action *repb.Action) Run {
	t.Helper()
	s.PutMessage(ctx, t, command)
	return s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: s.PutMessage(ctx, t, action)})
}

// ExecuteShell runs a script on an empty input root.
func (s *Subject) ExecuteShell(ctx context.Context, t T, script string, outputs ...string) Run {
	t.Helper()
	c := s.Shell(script, outputs...)
	return s.Execute(ctx, t, c, s.Action(t, c, s.Empty()))
}

// ExecuteDigest executes an uploaded action; instance and function are filled in.
func (s *Subject) ExecuteDigest(ctx context.Context, t T, req *repb.ExecuteRequest) Run {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.Start(ctx, req)
	if err != nil {
		return Run{Err: err}
	}
	return follow(t, stream)
}

// Start begins an execution. The stream ends with ctx at the latest.
func (s *Subject) Start(ctx context.Context, req *repb.ExecuteRequest) (repb.Execution_ExecuteClient, error) {
	req.InstanceName, req.DigestFunction = s.Instance, s.Function.Proto()
	return s.Execution.Execute(ctx, req)
}

// follow reads a stream of operations to its end.
func follow(t T, stream interface {
	Recv() (*longrunningpb.Operation, error)
}) Run {
	t.Helper()
	var r Run
	for {
		op, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return r
		}
		if err != nil {
			r.Err = err
			return r
		}
		r.Operations = append(r.Operations, op)
		if op.GetResponse() != nil {
			r.Response = response(t, op)
		}
	}
}

// response is the ExecuteResponse of an operation that is done.
func response(t T, op *longrunningpb.Operation) *repb.ExecuteResponse {
	t.Helper()
	resp := &repb.ExecuteResponse{}
	if err := op.GetResponse().UnmarshalTo(resp); err != nil {
		t.Fatalf("operation %s: response is no ExecuteResponse: %v", op.GetName(), err)
	}
	return resp
}

// stage is the stage an operation reports.
func stage(t T, op *longrunningpb.Operation) (repb.ExecutionStage_Value, *repb.ExecuteOperationMetadata) {
	t.Helper()
	meta := &repb.ExecuteOperationMetadata{}
	if op.GetMetadata() == nil {
		t.Fatalf("operation %s has no metadata", op.GetName())
	}
	if err := op.GetMetadata().UnmarshalTo(meta); err != nil {
		t.Fatalf("operation %s: metadata is no ExecuteOperationMetadata: %v", op.GetName(), err)
	}
	return meta.Stage, meta
}

// Result is the result of a run that must have exited with code.
func (s *Subject) Result(ctx context.Context, t T, r Run, code int32) *repb.ActionResult {
	t.Helper()
	if r.Code() != codes.OK {
		t.Fatalf("the execution ended with %s: %s", r.Code(), r.Why())
	}
	if r.Response.GetResult() == nil {
		t.Fatalf("the execution ended without a result after %d operations", len(r.Operations))
	}
	if got := r.Response.Result.ExitCode; got != code {
		t.Fatalf("the command exited with %d, want %d; stdout %q, stderr %q", got, code, s.stdout(ctx, t, r.Response.Result), s.stderr(ctx, t, r.Response.Result))
	}
	return r.Response.Result
}

// stdout is the standard output of a result, inline or by digest; so is stderr.
func (s *Subject) stdout(ctx context.Context, t T, r *repb.ActionResult) string {
	t.Helper()
	return s.inlineOr(ctx, t, r.StdoutRaw, r.StdoutDigest)
}

func (s *Subject) stderr(ctx context.Context, t T, r *repb.ActionResult) string {
	t.Helper()
	return s.inlineOr(ctx, t, r.StderrRaw, r.StderrDigest)
}

func (s *Subject) inlineOr(ctx context.Context, t T, raw []byte, d *repb.Digest) string {
	t.Helper()
	if d == nil || len(raw) > 0 && bytes.Equal(wire(t, s.Digest(raw)), wire(t, d)) {
		return string(raw)
	}
	return string(s.Get(ctx, t, d))
}

// file is the output file of that path, nil when the result has none.
func file(r *repb.ActionResult, name string) *repb.OutputFile {
	for _, f := range r.OutputFiles {
		if f.Path == name {
			return f
		}
	}
	return nil
}

// directory is the output directory of that path, nil when the result has none.
func directory(r *repb.ActionResult, name string) *repb.OutputDirectory {
	for _, d := range r.OutputDirectories {
		if d.Path == name {
			return d
		}
	}
	return nil
}

// wantFile fails unless the result has the output file with that content.
func (s *Subject) wantFile(ctx context.Context, t T, r *repb.ActionResult, name, content string) {
	t.Helper()
	f := file(r, name)
	if f == nil {
		t.Errorf("output file %s is not in the result: %v", name, r)
		return
	}
	if got := string(s.Get(ctx, t, f.Digest)); got != content {
		t.Errorf("output file %s is %q, want %q", name, got, content)
	}
}
