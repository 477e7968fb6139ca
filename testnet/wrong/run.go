package wrong

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// run executes an action in a directory of its own and gives what the client is told.
func (s *Server) run(ctx context.Context, o *operation, a *action) *repb.ExecuteResponse {
	meta := &repb.ExecutedActionMetadata{Worker: "in-memory", QueuedTimestamp: timestamppb.Now()}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return failed(codes.Canceled, "cancelled while it was queued")
	}
	defer func() {
		if !s.has(CancelLeaks) || ctx.Err() == nil {
			<-s.slots
		}
	}()
	o.enter(repb.ExecutionStage_EXECUTING)
	if s.has(StagesBackwards) {
		o.enter(repb.ExecutionStage_CACHE_CHECK)
		time.Sleep(50 * time.Millisecond) // lest it be passed over: a stream tells the latest state alone
	}
	live := liveWriter{s, o.stdout}
	resp := s.attempt(ctx, a, meta, live)
	live.end()
	if ctx.Err() != nil && !s.has(CancelRewrites) {
		if s.has(CancelCached) {
			s.file(a.digest, &repb.ActionResult{ExecutionMetadata: meta})
		}
		return failed(codes.Canceled, "cancelled")
	}
	s.remember(o, a, resp)
	if resp.Message = "executed in memory of the test"; s.has(MessageUnset) {
		resp.Message = ""
	}
	return resp
}

func failed(code codes.Code, format string, args ...any) *repb.ExecuteResponse {
	return &repb.ExecuteResponse{Status: status.Newf(code, format, args...).Proto()}
}

// remember caches a success.
func (s *Server) remember(o *operation, a *action, resp *repb.ExecuteResponse) {
	good := resp.GetStatus().GetCode() == 0 && (resp.Result.GetExitCode() == 0 || s.has(FailureCached)) || s.has(TimeoutCached)
	if o.alone || !good || s.has(NothingCached) || s.has(SkipLookupNotStored) && o.skip {
		return
	}
	r := resp.Result
	if r == nil {
		r = &repb.ActionResult{ExitCode: 137}
	}
	s.file(a.digest, r)
}

// attempt makes the directory, runs the command and collects its outputs.
func (s *Server) attempt(ctx context.Context, a *action, meta *repb.ExecutedActionMetadata, live io.Writer) *repb.ExecuteResponse {
	meta.WorkerStartTimestamp, meta.InputFetchStartTimestamp = timestamppb.Now(), timestamppb.Now()
	w, err := s.workspace(a)
	if err != nil {
		return failed(codes.Internal, "make the input root: %v", err)
	}
	defer w.remove()
	meta.InputFetchCompletedTimestamp, meta.ExecutionStartTimestamp = timestamppb.Now(), timestamppb.Now()
	result, timedOut, err := w.command(ctx, live)
	meta.ExecutionCompletedTimestamp, meta.OutputUploadStartTimestamp = timestamppb.Now(), timestamppb.Now()
	switch {
	case err != nil && s.has(AbsentCommandSucceeds):
		result = &repb.ActionResult{}
	case err != nil:
		return failed(codes.FailedPrecondition, "start the command: %v", err)
	case timedOut && s.has(TimeoutIsResult):
		result.ExitCode = 137
	case timedOut:
		return failed(codes.DeadlineExceeded, "the timeout of %s is over", a.message.Timeout.AsDuration())
	}
	if err := w.collect(result); err != nil {
		return &repb.ExecuteResponse{Status: status.Convert(err).Proto()}
	}
	meta.OutputUploadCompletedTimestamp, meta.WorkerCompletedTimestamp = timestamppb.Now(), timestamppb.Now()
	result.ExecutionMetadata = s.told(meta)
	resp := &repb.ExecuteResponse{Result: result}
	if s.has(FailureIsError) && result.ExitCode != 0 {
		resp.Status = status.Newf(codes.Unknown, "exit code %d", result.ExitCode).Proto()
	}
	return resp
}

// told is the metadata with what the server knows of resource usage.
func (s *Server) told(meta *repb.ExecutedActionMetadata) *repb.ExecutedActionMetadata {
	if used, err := anypb.New(durationpb.New(time.Millisecond)); err == nil && !s.has(UsageUnset) {
		meta.AuxiliaryMetadata = append(meta.AuxiliaryMetadata, used)
	}
	if s.has(WorkerUnset) {
		meta.Worker = ""
	}
	if s.has(TimestampsTangled) {
		meta.WorkerStartTimestamp = timestamppb.New(time.Now().Add(time.Hour))
	}
	if s.has(TimestampsMissing) {
		meta.ExecutionStartTimestamp, meta.InputFetchStartTimestamp = nil, nil
	}
	return meta
}

// command runs the command to its end, its timeout, or the end of ctx. The error says that it
// could not be started. What it prints goes to live as well, as it comes.
func (w *workspace) command(ctx context.Context, live io.Writer) (result *repb.ActionResult, timedOut bool, err error) {
	s, c := w.server, w.action.command
	if timeout := w.action.message.Timeout; timeout != nil && timeout.AsDuration() > 0 && !s.has(TimeoutIgnored) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout.AsDuration())
		defer cancel()
	}
	program, err := w.program(c.Arguments[0])
	if err != nil {
		return nil, false, err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Args, cmd.Dir, cmd.Env = c.Arguments, w.dir, w.environment()
	if s.has(ArgumentsSplit) {
		cmd.Args = append(cmd.Args[:1:1], strings.Fields(strings.Join(cmd.Args[1:], " "))...)
	}
	isolate(cmd, s.has(TimeoutSparesChildren))
	stdout, err := os.Create(filepath.Join(w.base, "stdout"))
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = stdout.Close() }() // read by name below
	stderr, err := os.Create(filepath.Join(w.base, "stderr"))
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = stderr.Close() }() // read by name below
	if cmd.Stdout, cmd.Stderr = stdout, stderr; s.has(StderrInStdout) {
		cmd.Stderr = stdout
	}
	if err := cmd.Start(); err != nil {
		return nil, false, err
	}
	stopTail := tail(stdout.Name(), live)
	defer stopTail()
	err = cmd.Wait()
	reap(cmd, s.has(TimeoutSparesChildren) && errors.Is(ctx.Err(), context.DeadlineExceeded))
	result = &repb.ActionResult{ExitCode: s.exitCode(err)}
	return result, errors.Is(ctx.Err(), context.DeadlineExceeded), w.streams(result)
}

// tail copies to live what is appended to a file, until stop has been called and has returned. It
// asks the file now and then: a pipe instead would be held open by children in the background.
func tail(name string, live io.Writer) (stop func()) {
	file, err := os.Open(name)
	if err != nil {
		return func() {} // a live view is a courtesy
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends when stop closes end
		defer close(ended)
		defer func() { _ = file.Close() }() // only read
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for last := false; !last; {
			select {
			case <-ticker.C:
			case <-end:
				last = true
			}
			_, _ = io.Copy(live, file) // reads on from where it ended before
		}
	}()
	return func() { close(end); <-ended }
}

// exitCode is what the shell would say.
func (s *Server) exitCode(err error) int32 {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0
	}
	code := exit.ExitCode()
	switch {
	case code < 0 && s.has(SignalIsSuccess):
		return 0
	case code < 0:
		return 128 + 9
	case code > 0 && s.has(ExitCodeIsOne):
		return 1
	default:
		return int32(code)
	}
}

// environment is the Command's.
func (w *workspace) environment() []string {
	env := []string{}
	for _, v := range w.action.command.EnvironmentVariables {
		if v.Value != "" || !w.server.has(EnvironmentLost) {
			env = append(env, v.Name+"="+v.Value)
		}
	}
	return env
}

// program resolves argv[0].
func (w *workspace) program(name string) (string, error) {
	s := w.server
	switch {
	case filepath.IsAbs(name) && s.has(AbsoluteCommandRefused):
		return "", fmt.Errorf("%s is absolute", name)
	case filepath.IsAbs(name):
		return name, nil
	case strings.Contains(name, "/") && s.has(RelativeFromRoot):
		return filepath.Join(w.root, name), nil
	case strings.Contains(name, "/"):
		return filepath.Join(w.dir, name), nil
	case s.has(BareCommandRefused):
		return "", fmt.Errorf("%s is no path", name)
	}
	for _, v := range w.action.command.EnvironmentVariables {
		if v.Name != "PATH" {
			continue
		}
		for _, dir := range filepath.SplitList(v.Value) {
			full := filepath.Join(dir, name)
			if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return full, nil
			}
		}
	}
	return "", fmt.Errorf("%s is not in the PATH of the command", name)
}
