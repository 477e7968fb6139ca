package run

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/collect"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	usagev1 "github.com/buildmesh/buildmesh/proto/usage/v1"
)

var _ flight.Executor = (*Runner)(nil)

func TestExecute(t *testing.T) {
	s := newStand(t, Options{})
	s.box.script = func(_ context.Context, c *command) error {
		c.result.ExitCode = 3
		c.result.Usage = sandbox.Usage{User: time.Second, System: time.Minute, MaxRSS: 4096}
		return errors.Join(c.write("out/a", "A"), c.print("hello", "oops"))
	}
	a := s.action(map[string]string{"src/main.c": "int main;", "tool": "#!tool"}, "out/a", "not/made", "src")
	a.WorkingDirectory, a.Env, a.Platform.Cores = "src", []string{"A=b"}, 2
	outcome, err := s.runner.Execute(t.Context(), a, s.observer)
	if err != nil {
		t.Fatal(err)
	}
	r := outcome.Result
	if r.ExitCode != 3 || s.blobs.get(r.StdoutDigest) != "hello" || s.blobs.get(r.StderrDigest) != "oops" {
		t.Errorf("exit code %d, stdout %v, stderr %v", r.ExitCode, r.StdoutDigest, r.StderrDigest)
	}
	if len(r.OutputFiles) != 1 || s.blobs.get(r.OutputFiles[0].Digest) != "A" || len(r.OutputDirectories) != 1 {
		t.Errorf("outputs %v %v", r.OutputFiles, r.OutputDirectories)
	}
	if !strings.Contains(outcome.Message, "ana") || !strings.Contains(outcome.Message, "tier A") {
		t.Errorf("message %q", outcome.Message)
	}
	checkMetadata(t, r.ExecutionMetadata)

	spec := s.box.specs[0]
	if spec.WorkingDirectory != "src" || !slices.Equal(spec.Arguments, []string{"cmd"}) || !slices.Equal(spec.Env, []string{"A=b"}) ||
		!slices.Equal(spec.Directories, []string{"not", "out"}) || spec.UID != -1 || spec.WholeRoot || spec.Network || spec.Cores != 2 {
		t.Errorf("sandbox was asked for %+v", spec)
	}
	if spec.Limits.Wall != 24*time.Hour || spec.Limits.Disk == 0 || spec.Limits.Output == 0 {
		t.Errorf("limits %+v", spec.Limits)
	}
	if o := s.observer; !o.existed || len(o.streams) != 2 || filepath.Base(o.streams[0]) != "stdout" || len(o.metadata) < 2 || o.metadata[0].Worker != "ana" {
		t.Errorf("observer saw %+v", o)
	}
}

// What is run for others asks for the background, what is run for the owner does not.
func TestGuests(t *testing.T) {
	s := newStand(t, Options{})
	for i, executor := range []flight.Executor{s.runner, s.runner.Guests(s.blobs)} {
		if _, err := executor.Execute(t.Context(), s.action(nil), s.observer); err != nil {
			t.Fatal(err)
		}
		if got := s.box.specs[i].Background; got != (i == 1) {
			t.Errorf("%T asks for the background: %v", executor, got)
		}
	}
}

// checkMetadata wants every timestamp, in order, and the usage.
func checkMetadata(t *testing.T, m *repb.ExecutedActionMetadata) {
	t.Helper()
	var before time.Time
	for i, ts := range []*timestamppb.Timestamp{
		m.WorkerStartTimestamp, m.InputFetchStartTimestamp, m.InputFetchCompletedTimestamp, m.ExecutionStartTimestamp,
	} {
		if ts == nil || ts.AsTime().Before(before) {
			t.Fatalf("timestamp %d is %v, after %v", i, ts, before)
		}
		before = ts.AsTime()
	}
	if m.OutputUploadStartTimestamp == nil || m.OutputUploadCompletedTimestamp == nil || m.WorkerCompletedTimestamp == nil {
		t.Errorf("timestamps %v", m)
	}
	if d := m.VirtualExecutionDuration.AsDuration(); d != 3*time.Second || m.Worker != "ana" {
		t.Errorf("ran for %v on %q", d, m.Worker)
	}
	u := &usagev1.ResourceUsage{}
	if len(m.AuxiliaryMetadata) != 1 || m.AuxiliaryMetadata[0].UnmarshalTo(u) != nil {
		t.Fatalf("auxiliary metadata %v", m.AuxiliaryMetadata)
	}
	if u.UserTime.AsDuration() != time.Second || u.MaxResidentBytes != 4096 || u.InputFiles != 2 || u.InputBytes != 15 || u.Tier != "A" || u.ReservedCores != 2 {
		t.Errorf("usage %v", u)
	}
}

func TestIdentityInside(t *testing.T) {
	s := newStand(t, Options{Network: true})
	seven := uint32(7)
	for _, c := range []struct {
		name     string
		change   func(*action.Action)
		uid, gid int
		network  bool
		wall     time.Duration
	}{
		{"default", func(*action.Action) {}, -1, -1, false, 24 * time.Hour},
		{"whole root", func(a *action.Action) { a.WholeRoot = true }, 0, 0, false, 24 * time.Hour},
		{"asked for", func(a *action.Action) { a.WholeRoot, a.Platform.UID, a.Platform.GID = true, &seven, &seven }, 7, 7, false, 24 * time.Hour},
		{"network", func(a *action.Action) { a.Platform.Network = true }, -1, -1, true, 24 * time.Hour},
		{"timeout", func(a *action.Action) { a.Timeout = time.Minute }, -1, -1, false, time.Minute},
	} {
		a := s.action(nil)
		c.change(a)
		if _, err := s.runner.Execute(t.Context(), a, s.observer); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		spec := s.box.specs[len(s.box.specs)-1]
		if spec.UID != c.uid || spec.GID != c.gid || spec.Network != c.network || spec.Limits.Wall != c.wall || spec.WholeRoot != a.WholeRoot {
			t.Errorf("%s: %+v", c.name, spec)
		}
	}
}

func TestNetworkNeedsTheOwner(t *testing.T) {
	s := newStand(t, Options{})
	a := s.action(nil)
	a.Platform.Network = true
	_, err := s.runner.Execute(t.Context(), a, s.observer)
	if e, ok := errors.AsType[*action.UnsupportedError](err); !ok || e.Property != "network" || len(s.box.specs) != 0 {
		t.Errorf("error %v, ran %d", err, len(s.box.specs))
	}
}

// A run that reached a limit answers with what there is, and an error that says which.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		reason  sandbox.Reason
		timeout time.Duration
		check   func(error) bool
		text    string
	}{
		{sandbox.TimedOut, time.Minute, func(err error) bool {
			e, ok := errors.AsType[*TimeoutError](err)
			return ok && e.Timeout == time.Minute && e.Asked && errors.Is(err, context.DeadlineExceeded)
		}, "timeout of 1m0s"},
		{sandbox.TimedOut, 0, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, "default"},
		{sandbox.OutOfMemory, 0, isResource(Memory, 0), "more memory than this machine has"},
		{sandbox.DiskFull, 0, isResource(Disk, 64<<30), "the 65536 MiB of disk space"},
		{sandbox.OutputTooLarge, 0, isResource(Output, 1<<30), "stdout and stderr"},
	} {
		s := newStand(t, Options{})
		s.box.script = func(_ context.Context, cmd *command) error {
			cmd.result.Reason, cmd.result.ExitCode, cmd.result.Signal = c.reason, 137, 9
			return errors.Join(cmd.print("so far", ""), cmd.write("o", "partial"))
		}
		a := s.action(nil, "o")
		a.Timeout = c.timeout
		outcome, err := s.runner.Execute(t.Context(), a, s.observer)
		if !c.check(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: error %v", c.reason, err)
		}
		if outcome == nil || s.blobs.get(outcome.Result.StdoutDigest) != "so far" || len(outcome.Result.OutputFiles) != 1 || outcome.Result.ExitCode != 137 {
			t.Errorf("%v: outcome %v", c.reason, outcome)
		} else if !strings.Contains(outcome.Message, "killed") {
			t.Errorf("%v: message %q", c.reason, outcome.Message)
		}
	}
}

func isResource(resource string, limit int64) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*ResourceError](err)
		return ok && e.Resource == resource && e.Limit == limit
	}
}

func TestOutOfMemoryIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name      string
		asked     int64
		enough    int64
		wantTries []int64
		fails     bool
	}{
		{"enough at once", 0, 50, []int64{100}, false},
		{"enough the second time", 0, 200, []int64{100, 300}, false},
		{"never enough", 0, 1000, []int64{100, 300}, true},
		{"asked for: not more", 60, 200, []int64{60}, true},
	} {
		s := newStand(t, Options{Memory: 100, MaxMemory: 300})
		s.box.script = func(_ context.Context, cmd *command) error {
			if cmd.spec.Limits.Memory < c.enough {
				cmd.result.Reason, cmd.result.ExitCode = sandbox.OutOfMemory, 137
			}
			return cmd.write("o", "try")
		}
		a := s.action(nil, "o")
		a.Platform.MemoryBytes = c.asked
		outcome, err := s.runner.Execute(t.Context(), a, s.observer)
		var tries []int64
		for _, spec := range s.box.specs {
			tries = append(tries, spec.Limits.Memory)
		}
		if !slices.Equal(tries, c.wantTries) || (err != nil) != c.fails {
			t.Errorf("%s: tries %v, error %v", c.name, tries, err)
		}
		if e, ok := errors.AsType[*ResourceError](err); ok && e.Retried != (len(tries) > 1) {
			t.Errorf("%s: %+v", c.name, e)
		}
		if len(tries) > 1 && !strings.Contains(outcome.Message, "again") {
			t.Errorf("%s: message %q", c.name, outcome.Message)
		}
	}
}

// Everything missing is named at once, directories and files; so are files lost after the tree was known.
func TestMissingInputs(t *testing.T) {
	s := newStand(t, Options{})
	a := s.action(map[string]string{"a": "1", "b/c": "2", "d/e": "3"})
	if _, err := s.runner.Execute(t.Context(), a, s.observer); err != nil {
		t.Fatal(err)
	}
	other := s.action(map[string]string{"a": "1", "b/c": "2", "d/e": "4", "d/f": "5"})
	sub := s.blobs.directory(t, map[string]string{"e": "4", "f": "5"})
	one, four := digest.SHA256.Of([]byte("1")), digest.SHA256.Of([]byte("4"))
	for _, c := range []struct {
		name string
		lose []digest.Digest
	}{
		{"a directory and a file", []digest.Digest{sub, one}},
		{"two files", []digest.Digest{one, four}},
		{"the root", []digest.Digest{other.InputRoot}},
	} {
		fresh := s.action(map[string]string{"a": "1", "b/c": "2", "d/e": "4", "d/f": "5"})
		for _, d := range c.lose {
			s.blobs.lose(d)
		}
		_, err := s.runner.Execute(t.Context(), fresh, s.observer)
		missing, ok := errors.AsType[*action.MissingError](err)
		if c.name == "the root" && err == nil {
			continue // known already: nothing of it is needed from the store but its files
		}
		if !ok || len(missing.Digests) != len(c.lose) {
			t.Errorf("%s: error %v", c.name, err)
			continue
		}
		for _, d := range c.lose {
			if !slices.Contains(missing.Digests, d) {
				t.Errorf("%s: %s is not named in %v", c.name, d, err)
			}
		}
	}
}

func TestKnownInputsAreNotReadAgain(t *testing.T) {
	s := newStand(t, Options{})
	a := s.action(map[string]string{"a": "1", "b/c": "2"})
	for range 2 {
		if _, err := s.runner.Execute(t.Context(), a, s.observer); err != nil {
			t.Fatal(err)
		}
	}
	gets := s.blobs.gets
	if _, err := s.runner.Execute(t.Context(), a, s.observer); err != nil || s.blobs.gets != gets {
		t.Errorf("%d reads, error %v", s.blobs.gets-gets, err)
	}
}

func TestTreesAreBounded(t *testing.T) {
	s := newStand(t, Options{KnownTrees: 6})
	var first digest.Digest
	for _, c := range "abc" { // three nodes each: root, file, file
		a := s.action(map[string]string{"x": string(c), "y": string(c)})
		if first.IsZero() {
			first = a.InputRoot
		}
		if _, err := s.runner.Execute(t.Context(), a, s.observer); err != nil {
			t.Fatal(err)
		}
	}
	if k := s.runner.trees; k.size != 6 || len(k.known) != 2 || k.get(first) != nil {
		t.Errorf("%d nodes in %d trees", k.size, len(k.known))
	}
}

func TestInvalidTree(t *testing.T) {
	s := newStand(t, Options{})
	a := s.action(nil)
	a.InputRoot = s.blobs.put([]byte("not a directory"))
	_, err := s.runner.Execute(t.Context(), a, s.observer)
	if e, ok := errors.AsType[*action.InvalidError](err); !ok || e.Field != "input_root_digest" {
		t.Errorf("error %v", err)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		script func(context.Context, *command) error
		store  error
		check  func(error) bool
	}{
		{"no such program", func(context.Context, *command) error {
			return &sandbox.CommandError{Program: "cc", Err: syscall.ENOENT}
		}, nil, func(err error) bool { _, ok := errors.AsType[*sandbox.CommandError](err); return ok }},
		{"sandbox broke", func(context.Context, *command) error { return errors.New("mount failed") }, nil,
			func(err error) bool { return strings.Contains(err.Error(), "mount failed") }},
		{"outputs too many", func(_ context.Context, c *command) error {
			return errors.Join(os.Mkdir(filepath.Join(c.upper, "o"), 0o755), c.write("o/1", ""), c.write("o/2", ""), c.write("o/3", ""))
		}, nil, isResource(Outputs, 0)},
		{"store is full", func(_ context.Context, c *command) error { return c.write("o", "x") }, syscall.ENOSPC, isResource(Disk, 0)},
	} {
		s := newStand(t, Options{Collect: collect.Limits{MaxNodes: 3}})
		s.box.script, s.blobs.fail = c.script, c.store
		outcome, err := s.runner.Execute(t.Context(), s.action(nil, "o"), s.observer)
		if err == nil || !c.check(err) || outcome != nil {
			t.Errorf("%s: outcome %v, error %v", c.name, outcome, err)
		}
	}
}

func TestCancel(t *testing.T) {
	s := newStand(t, Options{})
	why := errors.New("the client left")
	ctx, cancel := context.WithCancelCause(t.Context())
	s.box.script = func(ctx context.Context, c *command) error {
		cancel(why)
		<-ctx.Done()
		return c.write("o", "x")
	}
	outcome, err := s.runner.Execute(ctx, s.action(nil, "o"), s.observer)
	if outcome != nil || !errors.Is(err, why) {
		t.Errorf("outcome %v, error %v", outcome, err)
	}
}

func TestClose(t *testing.T) {
	s := newStand(t, Options{})
	started, end := make(chan struct{}), make(chan struct{})
	s.box.script = func(context.Context, *command) error { close(started); <-end; return nil }
	a := s.action(nil)
	done := make(chan error, 1)
	go func() { _, err := s.runner.Execute(context.Background(), a, s.observer); done <- err }()
	<-started
	closed := make(chan struct{})
	go func() { s.runner.Close(); close(closed) }()
	for { // Close is under way as soon as new actions are refused
		if _, err := s.runner.Execute(t.Context(), &action.Action{Platform: a.Platform}, s.observer); errors.Is(err, ErrClosed) {
			break
		}
	}
	select {
	case <-closed:
		t.Error("Close did not wait for the run")
	default:
	}
	close(end)
	<-closed
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLeftoversAreSwept(t *testing.T) {
	s := newStand(t, Options{})
	if err := s.runner.Close(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(s.dir, "run", scratchDir, "1", "upper")
	if err := os.MkdirAll(old, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := Open(s.blobs, s.cache, s.box, Options{Dir: filepath.Join(s.dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	s.runner = r
	if _, err := os.Stat(old); err == nil {
		t.Error("a scratch directory of the process before is still there")
	}
}
