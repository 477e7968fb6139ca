package node

import (
	"os"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// store uploads a message.
func (s *started) store(t testing.TB, m proto.Message) digest.Digest {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return s.put(t, string(data))
}

// asking stores an action that writes the file "out" and asks for platform properties, name=value each. One that asks for
// InputRootAbsolutePath=/ brings its whole root: a shell and nothing else.
func (s *started) asking(t testing.TB, script string, properties ...string) digest.Digest {
	t.Helper()
	platform, root := &repb.Platform{}, &repb.Directory{}
	for _, pair := range properties {
		name, value, _ := strings.Cut(pair, "=")
		platform.Properties = append(platform.Properties, &repb.Platform_Property{Name: name, Value: value})
		if name == "InputRootAbsolutePath" {
			root = s.shellRoot(t)
		}
	}
	command := s.store(t, &repb.Command{Arguments: []string{"/bin/sh", "-c", script}, OutputPaths: []string{"out"}})
	return s.store(t, &repb.Action{CommandDigest: command.Proto(), InputRootDigest: s.store(t, root).Proto(), Platform: platform})
}

// shellRoot is a root file system with a shell.
func (s *started) shellRoot(t testing.TB) *repb.Directory {
	t.Helper()
	shell, err := os.ReadFile("/bin/busybox")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no static busybox here: apt-get install busybox-static")
	}
	bin := s.store(t, &repb.Directory{
		Files:    []*repb.FileNode{{Name: "busybox", Digest: s.put(t, string(shell)).Proto(), IsExecutable: true}},
		Symlinks: []*repb.SymlinkNode{{Name: "sh", Target: "busybox"}},
	})
	nothing := s.store(t, &repb.Directory{})
	root := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "bin", Digest: bin.Proto()}}}
	for _, name := range []string{"dev", "etc", "proc", "tmp"} {
		root.Directories = append(root.Directories, &repb.DirectoryNode{Name: name, Digest: nothing.Proto()})
	}
	return root
}

// refusal is the error that executing an action gives.
func (s *started) refusal(t testing.TB, action digest.Digest) error {
	t.Helper()
	stream, err := repb.NewExecutionClient(s.conn).Execute(t.Context(), &repb.ExecuteRequest{ActionDigest: action.Proto()})
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

// TestOtherTools: a member whose tools differ is given no action that uses them, and nothing made with them is taken from
// it. An action that brings its whole root crosses.
func TestOtherTools(t *testing.T) {
	p := newPairOf(t, nil, []string{"exec.pretend=ISA=aarch64"})
	bare := p.ana.asking(t, "echo made with the tools of $HOSTNAME > out")
	waiting := p.ana.opened(t, bare)
	eventually(t, "it waits", func() bool { return p.ana.machine.room().Waiting == 1 })
	whole := []string{"OSFamily=Linux", "ISA=ARM64", "InputRootAbsolutePath=/"}
	crossing := p.ana.asking(t, "echo $0 > out", whole...)
	r := p.ana.executed(t, crossing)
	if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || r.Result.GetExecutionMetadata().GetWorker() != "ben" {
		t.Fatalf("the hermetic one: %v", r)
	}
	if p.ana.machine.room().Waiting != 1 || p.ben.machine.counts.status().Succeeded != 1 {
		t.Errorf("the bare one does not wait for ana: %v", p.ben.machine.counts.status())
	}
	p.free()
	if r := response(t, waiting); r.Result.GetExecutionMetadata().GetWorker() != "ana" {
		t.Fatalf("the bare one: %v", r)
	}
	p.ben.knows(t, p.ana, bare)
	if r := p.ben.executed(t, p.ben.asking(t, "echo made with the tools of $HOSTNAME > out")); r.CachedResult || r.Result.GetExecutionMetadata().GetWorker() != "ben" {
		t.Errorf("ben took what other tools made: %v", r)
	}
	p.ben.finds(t, crossing)
	if r := p.ben.executed(t, p.ben.asking(t, "echo $0 > out", whole...)); !r.CachedResult {
		t.Errorf("the hermetic one is not shared: %v", r)
	}
}

// TestPlatformDecides: what this machine does not offer runs at the member that does, and when none does the error names
// the property.
func TestPlatformDecides(t *testing.T) {
	p := newPairOf(t, []string{"exec.memory=1GiB"}, []string{"exec.cores=2", "exec.memory=2GiB", "exec.pools=default,big", "exec.pretend=OSFamily=Plan9"})
	p.free()
	for i, property := range []string{"OSFamily=plan9", "Pool=big", "cores=2", "min-mem=1500M"} {
		r := p.ana.executed(t, p.ana.asking(t, "echo $0 > out", property))
		if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || r.Result.GetExecutionMetadata().GetWorker() != "ben" {
			t.Errorf("%d, %s: %v", i, property, r)
		}
	}
	for _, c := range []struct {
		properties []string
		named      string
	}{
		{[]string{"OSFamily=beos"}, "OSFamily"},
		{[]string{"ISA=riscv"}, "ISA"},
		{[]string{"Pool=huge"}, "Pool"},
		{[]string{"cores=4"}, "cores"},
		{[]string{"min-mem=3G"}, "min-mem"},
		{[]string{"OSFamily=linux", "Pool=big"}, "Pool"}, // either is to be had, not both
		{[]string{"host-fingerprint=x"}, "host-fingerprint"},
	} {
		s := status.Convert(p.ana.refusal(t, p.ana.asking(t, "echo $0 > out", c.properties...)))
		var violations []*errdetails.PreconditionFailure_Violation
		for _, d := range s.Details() {
			if f, ok := d.(*errdetails.PreconditionFailure); ok {
				violations = f.Violations
			}
		}
		if s.Code() != codes.FailedPrecondition || len(violations) != 1 || violations[0].Subject != c.named || !strings.Contains(s.Message(), c.named) {
			t.Errorf("%v: %v %v, want %s named", c.properties, s, violations, c.named)
		}
	}
}
