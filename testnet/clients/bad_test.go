//go:build unix

package clients

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What an artifact cannot hold ends the build with its name, and nothing else: the next element builds.
func TestBuildStreamSpecialFile(t *testing.T) {
	stream := Find(t).BuildStream(t)
	node := stream.Place.StartNode(t)
	client := stream.NewClient(t, node.BuildStream(), Execution)
	s := client.Run(t, "build", "pipe.bst")
	if s.Exit == 0 || !strings.Contains(s.Output, `"buildstream-install/run/pipe" is a named pipe, which a result cannot hold`) {
		t.Errorf("exit %d\n%s", s.Exit, s.Tail())
	}
	built(t, "after it", client.Run(t, "build", "use.bst"), nil)
	said(t, client)
}

// An artifact of which the node lost a blob, behind its back, is no artifact any more: clients build it again and bring the
// blob back, with no word of it to people.
func TestBuildStreamLostBlob(t *testing.T) {
	stream := Find(t).BuildStream(t)
	node := stream.Place.StartNode(t)
	first := stream.NewClient(t, node.BuildStream(), Artifacts, Sources, Execution)
	built(t, "from empty", first.Run(t, "build", "use.bst"), map[string]int{"Build": 3})
	lost := loseBlob(t, node, stream.busybox)
	t.Logf("deleted %s", lost)

	second := stream.NewClient(t, node.BuildStream(), Artifacts, Sources, Execution)
	built(t, "after the loss", second.Run(t, "build", "use.bst"), nil)
	built(t, "all of it", second.Run(t, "artifact", "pull", "--deps", "all", "use.bst"), nil)
	said(t, second)
	if dir := second.Checkout(t, "base.bst"); !sameContent(t, filepath.Join(dir, "bin", "busybox"), stream.busybox) {
		t.Error("busybox came back as something else")
	}
}

// loseBlob deletes the store's file with the content of the file at path.
func loseBlob(t *testing.T, node *Node, path string) string {
	t.Helper()
	var found string
	err := filepath.WalkDir(filepath.Join(node.base, "cache"), func(at string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.Contains(at, "/stage/") {
			return err
		}
		if info, err := e.Info(); err == nil && info.Size() > 1<<20 && sameContent(t, at, path) {
			found = at
			return os.Remove(at)
		}
		return nil
	})
	if err != nil || found == "" {
		t.Fatalf("no blob with the content of %s: %v", path, err)
	}
	return found
}

func sameContent(t *testing.T, a, b string) bool {
	t.Helper()
	one, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(one) == string(other)
}

// Links that lead up and out of a whole root lead to its top, as in a root file system: never to the machine's files.
func TestRootEscapes(t *testing.T) {
	stream := Find(t).BuildStream(t)
	r := dial(t, stream.Place.StartNode(t).BuildStream())
	f := r.newBase(stream.busybox, "sh", "ln", "mkdir", "cat", "rm")
	f.file("etc/passwd", "of the root\n")
	command := element("escape", `
		rm -r up absolute; mkdir up; ln -s ../../../../../../../../etc up/etc; ln -s /etc absolute
		cat up/etc/passwd >seen; mkdir -p /buildstream-install; ln -s ../../../../../../../../etc/passwd /buildstream-install/kept`)
	command.OutputPaths = append(command.OutputPaths, "up/etc/passwd", "absolute/passwd", "../../../../../../etc/passwd")
	answer, _, err := r.attempt(command, f.root())
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "leaves the input root") {
		t.Errorf("an output path that leaves the root: %v, %v", answer, err)
	}
	command.OutputPaths = command.OutputPaths[:len(command.OutputPaths)-1]
	answer, _ = r.execute(command, f.root())
	result := r.succeeded(answer)
	if len(result.OutputFiles) != 2 {
		t.Fatalf("output files %v", result.OutputFiles)
	}
	for _, o := range result.OutputFiles {
		if got := string(r.read(o.Digest)); got != "of the root\n" {
			t.Errorf("%s holds %.60q", o.Path, got)
		}
	}
	install := r.directory(result.OutputDirectories[1].RootDirectoryDigest)
	if len(install.Symlinks) != 1 || install.Symlinks[0].Target != "../../../../../../../../etc/passwd" {
		t.Errorf("the link that was installed is %v", install.Symlinks)
	}
}
