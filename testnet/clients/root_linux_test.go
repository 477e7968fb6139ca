package clients

import (
	"slices"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// An integration's output is the whole root: with what was written, as it was elsewhere, and without what is mounted.
// Nothing of the machine comes in on the way there: no variable of the node's environment, no System V segment.
func TestRootIntegration(t *testing.T) {
	stream := Find(t).BuildStream(t)
	segment, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.SysvShmCtl(segment, unix.IPC_RMID, nil) })
	r := dial(t, stream.Place.StartNode(t).BuildStream())
	f := r.newBase(stream.busybox, "sh", "cat", "chmod", "rm")
	f.file("usr/lib/kept", "kept\n")
	f.file("usr/lib/removed", "removed\n")
	f.file("etc/changed", "old\n")
	command := integration(`
		cat /proc/$$/environ; echo; cat /proc/sysvipc/shm
		echo x >/tmp/x; echo x >/dev/shm/x
		echo new >/etc/changed; rm /usr/lib/removed; echo '#!/bin/sh' >/bin/made; chmod 4755 /bin/made`)
	root := f.root()
	answer, _ := r.execute(command, root)
	result := r.succeeded(answer)

	environment, segments, _ := strings.Cut(string(r.read(result.StdoutDigest)), "\x00\n")
	var want []string
	for _, v := range command.EnvironmentVariables {
		want = append(want, v.Name+"="+v.Value)
	}
	got := strings.Split(environment, "\x00")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the environment is %q, want %q", got, want)
	}
	if strings.Count(segments, "\n") != 1 || !strings.Contains(segments, "shmid") {
		t.Errorf("segments of others are seen:\n%s", segments)
	}

	f.dir("usr/lib").Files = f.dir("usr/lib").Files[:1]
	f.dir("etc").Files = nil
	f.file("etc/changed", "new\n")
	f.dir("bin").Files = append(f.dir("bin").Files, &repb.FileNode{Name: "made", Digest: r.put([]byte("#!/bin/sh\n")), IsExecutable: true})
	wanted := f.root()
	if len(result.OutputDirectories) != 1 || !proto.Equal(result.OutputDirectories[0].RootDirectoryDigest, wanted) {
		r.upload()
		t.Errorf("captured %v, of which the top is %v, want %v", result.OutputDirectories,
			r.directory(result.OutputDirectories[0].RootDirectoryDigest), r.directory(wanted))
	}
}
