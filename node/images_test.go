package node

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/node/archive"
)

// busyboxImage is an image with a shell and nothing else, in two layers: the second removes a file of the first.
func busyboxImage(t *testing.T) v1.Image {
	t.Helper()
	shell, err := os.ReadFile("/bin/busybox")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no static busybox here: apt-get install busybox-static")
	}
	image := empty.Image
	for _, entries := range [][]tar.Header{
		{
			{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(shell))},
			{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "busybox"},
			{Name: "bin/cat", Typeflag: tar.TypeLink, Linkname: "bin/busybox"},
			{Name: "etc/removed", Typeflag: tar.TypeReg, Mode: 0o644},
			{Name: "dev/sda", Typeflag: tar.TypeBlock, Mode: 0o600, Devmajor: 8},
		},
		{
			{Name: "etc/.wh.removed", Typeflag: tar.TypeReg},
			{Name: "image/says", Typeflag: tar.TypeReg, Mode: 0o644},
		},
	} {
		var packed bytes.Buffer
		w := tar.NewWriter(&packed)
		for _, h := range entries {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				if _, err := w.Write(shell); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil })
		if err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			t.Fatal(err)
		}
	}
	if image, err = mutate.Config(image, v1.Config{Env: []string{"PATH=/bin", "FROM_IMAGE=yes"}}); err != nil {
		t.Fatal(err)
	}
	return image
}

// inImage stores an action that runs a script with a platform property, in the working directory "sub".
func (s *started) inImage(t *testing.T, property, value, script string, arguments ...string) digest.Digest {
	t.Helper()
	store := func(m proto.Message) digest.Digest {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return s.put(t, string(data))
	}
	command := store(&repb.Command{Arguments: append([]string{"sh", "-c", script}, arguments...), WorkingDirectory: "sub",
		OutputPaths: []string{"out/log", "../other"}})
	sub := store(&repb.Directory{Files: []*repb.FileNode{{Name: "in", Digest: s.put(t, "input").Proto()}}})
	root := store(&repb.Directory{Directories: []*repb.DirectoryNode{{Name: "sub", Digest: sub.Proto()}}})
	return store(&repb.Action{CommandDigest: command.Proto(), InputRootDigest: root.Proto(), Platform: &repb.Platform{
		Properties: []*repb.Platform_Property{{Name: property, Value: value}}}})
}

// seen is a script that tells of its surroundings; every line of its output is checked below.
const seen = `exec >out/log
pwd; cat in; echo; echo $FROM_IMAGE $HOME
ls /; ls /etc /image /dev/sda 2>/dev/null
id -u; cat /etc/hosts | head -n 1
echo scratch >/etc/new && cat /etc/new
echo result >../other`

const seenText = `/build/sub
input
yes /
bin
build
dev
etc
image
proc
tmp
/etc:
hosts

/image:
says
0
127.0.0.1 localhost
scratch
`

func TestContainerImage(t *testing.T) {
	noLeaks(t)
	image := busyboxImage(t)
	pin, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	onDisk := t.TempDir()
	if path, err := layout.Write(onDisk, empty.Index); err != nil || path.AppendImage(image) != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	server := httptest.NewServer(registry.New())
	defer server.Close()
	at := strings.TrimPrefix(server.URL, "http://")
	tag, err := name.NewTag(at + "/tools/busybox:latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	n := executing(t, dir, "exec.image_registries="+at)
	for _, reference := range []string{"oci:" + onDisk + "@" + pin.String(), "docker://" + tag.Repository.Name() + "@" + pin.String()} {
		action := n.inImage(t, "container-image", reference, seen)
		r := n.executed(t, action)
		if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || r.CachedResult || len(r.Result.OutputFiles) != 2 {
			t.Fatalf("%s: %v", reference, r)
		}
		if got := n.content(t, r.Result.OutputFiles[0].Digest); got != seenText {
			t.Errorf("%s: the action saw\n%s\nwant\n%s", reference, got, seenText)
		}
		if got := n.content(t, r.Result.OutputFiles[1].Digest); got != "result\n" || r.Result.OutputFiles[1].Path != "../other" {
			t.Errorf("%s: the other output is %q: %v", reference, got, r.Result.OutputFiles[1])
		}
		if found, err := n.result(t, action); err != nil || len(found.OutputFiles) != 2 {
			t.Errorf("%s: GetActionResult: %v, %v", reference, found, err)
		}
	}
	replaced := n.executed(t, n.inImage(t, "container-image", "oci:"+onDisk+"@"+pin.String(), "cd /; rm -rf build; ln -s /etc build"))
	if codes.Code(replaced.Status.GetCode()) != codes.FailedPrecondition || !strings.Contains(replaced.Status.Message, "input root") {
		t.Errorf("an action that replaces its input root: %v", replaced)
	}
	floating := n.executed(t, n.inImage(t, "container-image", "docker://"+tag.Name(), "exit 0"))
	want := "docker://" + tag.Repository.Name() + "@" + pin.String()
	if codes.Code(floating.Status.GetCode()) != codes.InvalidArgument || !strings.Contains(floating.Status.Message, want) {
		t.Errorf("a floating tag: %v, want %s in the message", floating.Status, want)
	}
	n.stop()
	server.Close()

	// After a restart the registry is not needed any more.
	n = executing(t, dir, "exec.image_registries="+at)
	if r := n.executed(t, n.inImage(t, "container-image", want, "echo again >../other")); r.Status.GetCode() != 0 || len(r.Result.OutputFiles) != 1 {
		t.Errorf("after a restart: %v", r)
	}
	absent := strings.Replace(want, pin.Hex, digest.SHA256.Of([]byte("other")).Hex(), 1)
	if r := n.executed(t, n.inImage(t, "container-image", absent, "exit 0")); codes.Code(r.Status.GetCode()) != codes.Unavailable {
		t.Errorf("registry down: %v", r)
	}
	n.stop()
}

// TestImageRefused asks for images that the configuration, or the form of the name, does not allow.
func TestImageRefused(t *testing.T) {
	noLeaks(t)
	server := httptest.NewServer(registry.New())
	defer server.Close()
	n := executing(t, t.TempDir())
	pin := "@sha256:" + digest.SHA256.Of([]byte("image")).Hex()
	refused := func(reference string) error {
		stream, err := repb.NewExecutionClient(n.conn).Execute(t.Context(), &repb.ExecuteRequest{
			ActionDigest: n.inImage(t, "container-image", reference, "exit 0").Proto()})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	for reference, code := range map[string]codes.Code{
		"ubuntu:24.04": codes.InvalidArgument, "docker://UPPER" + pin: codes.InvalidArgument, "oci:relative" + pin: codes.InvalidArgument,
		"docker://ubuntu@sha256:123": codes.InvalidArgument, "oci:/a/../b" + pin: codes.InvalidArgument,
	} {
		if err := refused(reference); status.Code(err) != code {
			t.Errorf("%s: %v, want %v", reference, err, code)
		}
	}
	private := "docker://" + strings.TrimPrefix(server.URL, "http://") + "/x" + pin
	if r := n.executed(t, n.inImage(t, "container-image", private, "exit 0")); codes.Code(r.Status.GetCode()) != codes.FailedPrecondition ||
		!strings.Contains(r.Status.Message, "exec.image_registries") {
		t.Errorf("a registry at a private address: %v", r)
	}
	gone := "oci:" + t.TempDir() + pin
	if r := n.executed(t, n.inImage(t, "container-image", gone, "exit 0")); codes.Code(r.Status.GetCode()) != codes.FailedPrecondition {
		t.Errorf("a layout without the image: %v", r)
	}
	n.stop()
	n = executing(t, t.TempDir(), "exec.images=false")
	if err := refused("docker://ubuntu" + pin); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("images switched off: %v", err)
	}
	n.stop()
}

// TestExportedImage runs an action in what `buildmesh export --oci` makes of a tree.
func TestExportedImage(t *testing.T) {
	noLeaks(t)
	flat := mutate.Extract(busyboxImage(t))
	defer flat.Close()
	onDisk := t.TempDir()
	pin, err := archive.Layout(t.Context(), flat, onDisk)
	if err != nil {
		t.Fatal(err)
	}
	n := executing(t, t.TempDir(), "asset.download=false")
	r := n.executed(t, n.inImage(t, "container-image", "oci:"+onDisk+"@"+pin, "exec >out/log; ls /image"))
	if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || len(r.Result.OutputFiles) != 1 {
		t.Fatalf("%v", r)
	}
	if got := n.content(t, r.Result.OutputFiles[0].Digest); got != "says\n" {
		t.Errorf("the action saw %q", got)
	}
	n.stop()
}

// content reads a blob.
func (s *started) content(t *testing.T, d *repb.Digest) string {
	t.Helper()
	r, err := repb.NewContentAddressableStorageClient(s.conn).BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d}})
	if err == nil {
		err = status.ErrorProto(r.Responses[0].Status)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return string(r.Responses[0].Data)
}
