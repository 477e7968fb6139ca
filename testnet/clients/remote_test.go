//lint:file-ignore SA1019 BuildStream sets the platform of the Command

//go:build unix

package clients

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// remote is a client of our own that asks what BuildStream asks, for what its command line cannot be made to do.
type remote struct {
	t        testing.TB
	conn     *grpc.ClientConn
	instance string
	blob     map[string][]byte // to be uploaded, by hash
}

// dial connects to an instance of a server; the connection is closed when the test ends.
func dial(t testing.TB, s Server) *remote {
	t.Helper()
	conn, err := grpc.NewClient(s.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &remote{t: t, conn: conn, instance: s.Instance, blob: map[string][]byte{}}
}

// put notes a blob for the next upload.
func (r *remote) put(data []byte) *repb.Digest {
	sum := sha256.Sum256(data)
	d := &repb.Digest{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(data))}
	r.blob[d.Hash] = data
	return d
}

func (r *remote) message(m proto.Message) *repb.Digest {
	r.t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.put(data)
}

// upload sends what was put since the last time and the server lacks, in batches of at most 3 MiB.
func (r *remote) upload() {
	r.t.Helper()
	store := repb.NewContentAddressableStorageClient(r.conn)
	ask := &repb.FindMissingBlobsRequest{InstanceName: r.instance}
	for hash, data := range r.blob {
		ask.BlobDigests = append(ask.BlobDigests, &repb.Digest{Hash: hash, SizeBytes: int64(len(data))})
	}
	missing, err := store.FindMissingBlobs(r.t.Context(), ask)
	if err != nil {
		r.t.Fatal(err)
	}
	batch, size := &repb.BatchUpdateBlobsRequest{InstanceName: r.instance}, 0
	send := func() {
		reply, err := store.BatchUpdateBlobs(r.t.Context(), batch)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, one := range reply.Responses {
			if one.Status.GetCode() != 0 {
				r.t.Fatal(one)
			}
		}
		batch.Requests, size = nil, 0
	}
	for _, d := range missing.MissingBlobDigests {
		data := r.blob[d.Hash]
		if size += len(data); size > 3<<20 && len(batch.Requests) > 0 {
			send()
			size = len(data)
		}
		batch.Requests = append(batch.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: d, Data: data})
	}
	send()
	clear(r.blob)
}

// execute runs an action and gives the answer and how long it took to come.
func (r *remote) execute(command *repb.Command, root *repb.Digest) (*repb.ExecuteResponse, time.Duration) {
	r.t.Helper()
	answer, took, err := r.attempt(command, root)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer, took
}

// attempt is execute for an action that the server may refuse to take at all.
func (r *remote) attempt(command *repb.Command, root *repb.Digest) (*repb.ExecuteResponse, time.Duration, error) {
	r.t.Helper()
	action := r.message(&repb.Action{CommandDigest: r.message(command), InputRootDigest: root, Platform: command.Platform})
	r.upload()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Minute)
	defer cancel()
	stream, err := repb.NewExecutionClient(r.conn).Execute(ctx, &repb.ExecuteRequest{InstanceName: r.instance, ActionDigest: action})
	if err != nil {
		return nil, 0, err
	}
	for {
		operation, err := stream.Recv()
		if err != nil {
			return nil, 0, err
		}
		if operation.Done {
			answer := &repb.ExecuteResponse{}
			err := operation.GetResponse().UnmarshalTo(answer)
			return answer, time.Since(begun), err
		}
	}
}

// succeeded fails the test unless the action ended well.
func (r *remote) succeeded(answer *repb.ExecuteResponse) *repb.ActionResult {
	r.t.Helper()
	if answer.Status.GetCode() != 0 || answer.Result.GetExitCode() != 0 {
		r.t.Fatalf("status %v, exit code %d, %q, stderr %q", answer.Status, answer.Result.GetExitCode(), answer.Message,
			r.read(answer.Result.GetStderrDigest()))
	}
	return answer.Result
}

// read gets one small blob.
func (r *remote) read(d *repb.Digest) []byte {
	r.t.Helper()
	if d.GetSizeBytes() == 0 {
		return nil
	}
	reply, err := repb.NewContentAddressableStorageClient(r.conn).BatchReadBlobs(r.t.Context(), &repb.BatchReadBlobsRequest{
		InstanceName: r.instance, Digests: []*repb.Digest{d}})
	if err != nil || reply.Responses[0].Status.GetCode() != 0 {
		r.t.Fatalf("read %v: %v, %v", d, err, reply)
	}
	return reply.Responses[0].Data
}

// base is a root file system under construction: busybox with the applets as links, and what else is added.
type base struct {
	remote *remote
	dirs   map[string]*repb.Directory // by path, "" for the root
}

// newBase makes one of busybox alone.
func (r *remote) newBase(busybox string, applets ...string) *base {
	r.t.Helper()
	data, err := os.ReadFile(busybox)
	if err != nil {
		r.t.Fatal(err)
	}
	f := &base{remote: r, dirs: map[string]*repb.Directory{"": {}}}
	for _, dir := range []string{"dev", "proc", "tmp", "etc"} {
		f.dir(dir)
	}
	f.dir("bin").Files = append(f.dir("bin").Files, &repb.FileNode{Name: "busybox", Digest: r.put(data), IsExecutable: true})
	for _, applet := range applets {
		f.dir("bin").Symlinks = append(f.dir("bin").Symlinks, &repb.SymlinkNode{Name: applet, Target: "busybox"})
	}
	return f
}

// dir gives the directory at a path, made with its parents when it is not there.
func (f *base) dir(at string) *repb.Directory {
	if f.dirs[at] == nil {
		f.dirs[at] = &repb.Directory{}
		if parent := path.Dir(at); parent != "." {
			f.dir(parent)
		}
	}
	return f.dirs[at]
}

// clone is a copy to go on with.
func (f *base) clone() *base {
	c := &base{remote: f.remote, dirs: make(map[string]*repb.Directory, len(f.dirs))}
	for at, m := range f.dirs {
		c.dirs[at] = proto.CloneOf(m)
	}
	return c
}

func (f *base) file(at, content string) {
	dir, name := path.Split(at)
	d := f.dir(strings.TrimSuffix(dir, "/"))
	d.Files = append(d.Files, &repb.FileNode{Name: name, Digest: f.remote.put([]byte(content))})
}

// readOnly sets BuildStream's property of a directory.
func (f *base) readOnly(at, value string) {
	f.dir(at).NodeProperties = &repb.NodeProperties{Properties: []*repb.NodeProperty{{Name: "SubtreeReadOnly", Value: value}}}
}

// root puts all Directory messages and gives the root's digest.
func (f *base) root() *repb.Digest {
	below := map[string][]string{}
	for at := range f.dirs {
		if parent := path.Dir(at); at != "" && parent == "." {
			below[""] = append(below[""], at)
		} else if at != "" {
			below[parent] = append(below[parent], at)
		}
	}
	var build func(at string) *repb.Digest
	build = func(at string) *repb.Digest {
		m := proto.CloneOf(f.dirs[at])
		for _, sub := range below[at] {
			m.Directories = append(m.Directories, &repb.DirectoryNode{Name: path.Base(sub), Digest: build(sub)})
		}
		sortDirectory(m)
		return f.remote.message(m)
	}
	return build("")
}

// directory reads a Directory.
func (r *remote) directory(d *repb.Digest) *repb.Directory {
	r.t.Helper()
	m := &repb.Directory{}
	if err := proto.Unmarshal(r.read(d), m); err != nil {
		r.t.Fatal(err)
	}
	return m
}

// element is the command of a BuildStream element: it builds in a directory of its own and installs into another one.
func element(name, script string) *repb.Command {
	return &repb.Command{
		Arguments: []string{"sh", "-c", "-e", script}, WorkingDirectory: "buildstream/greeting/" + name,
		OutputPaths:           []string{".", "../../../buildstream-install"},
		OutputDirectoryFormat: repb.Command_DIRECTORY_ONLY,
		EnvironmentVariables:  []*repb.Command_EnvironmentVariable{{Name: "PATH", Value: "/usr/bin:/bin"}, {Name: "HOME", Value: "/tmp"}},
		Platform:              &repb.Platform{Properties: []*repb.Platform_Property{{Name: "ISA", Value: isa}, {Name: "OSFamily", Value: "linux"}}},
	}
}

// integration is the command that BuildStream runs for the integration commands of dependencies: its output is the root.
func integration(script string) *repb.Command {
	c := element("", script)
	c.WorkingDirectory, c.OutputPaths = "", []string{"."}
	return c
}

// prepare makes the directories of an element as BuildStream does: the root is read-only but for them.
func (f *base) prepare(name string) {
	f.readOnly("", "true")
	for _, dir := range []string{"dev", "proc", "tmp", "buildstream/greeting/" + name, "buildstream-install"} {
		f.readOnly(dir, "false")
	}
}

// sortDirectory brings the lists into the canonical order.
func sortDirectory(m *repb.Directory) {
	slices.SortFunc(m.Files, func(a, b *repb.FileNode) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Directories, func(a, b *repb.DirectoryNode) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Symlinks, func(a, b *repb.SymlinkNode) int { return strings.Compare(a.Name, b.Name) })
}

// isa is this machine's, as BuildStream names it.
var isa = map[string]string{"amd64": "x86-64", "arm64": "aarch64"}[runtime.GOARCH]
