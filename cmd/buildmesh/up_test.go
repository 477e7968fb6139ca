//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/node"
)

func TestMain(m *testing.M) {
	node.Main()
	if slices.Contains(os.Environ(), asProgram) {
		main()
	}
	os.Exit(m.Run())
}

// lockedBuffer is a buffer that several goroutines may use.
type lockedBuffer struct {
	mu    sync.Mutex // guards buf
	buf   bytes.Buffer
	once  sync.Once
	first chan struct{} // if set, closed by the first Write
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first != nil {
		b.once.Do(func() { close(b.first) })
	}
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// upped is `buildmesh up` running in a directory.
type upped struct {
	dir      string
	out, err lockedBuffer
	end      func() int // tells it to end, waits, and gives its exit status
	wait     func() int // waits alone
}

// up runs `buildmesh up` with more arguments until the test ends, and returns when the node listens.
func up(t *testing.T, more ...string) *upped {
	t.Helper()
	u := &upped{dir: t.TempDir()}
	u.out.first = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	status, running := -1, sync.WaitGroup{}
	args := append([]string{"up", "--dir", u.dir, "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0",
		"--set", "listen.mesh=127.0.0.1:0", "--set", "exec.enabled=false", "--set", "store.max_size=256MiB"}, more...)
	running.Go(func() { status = run(args, verbContext{ctx: ctx, out: &u.out, errOut: &u.err}) })
	u.wait = func() int { running.Wait(); return status }
	u.end = func() int { cancel(); return u.wait() }
	t.Cleanup(func() { u.end() })
	select {
	case <-u.out.first: // it greets when it listens
	case <-time.After(time.Minute):
		t.Fatalf("the node does not greet: %s", u.err.String())
	}
	return u
}

// typed runs a verb on the node.
func (u *upped) typed(t *testing.T, args ...string) answer {
	t.Helper()
	return typed(t, append(args, "--dir", u.dir)...)
}

func TestUp(t *testing.T) {
	u := up(t)
	for line, want := range map[string]string{
		"status":       `(?s)^node +\S+, up .*pid \d+.*\npeer +12D3KooW\w+\n.*endpoint +grpc://127\.0\.0\.1:\d+\n.*store +0 blobs, 0 B of 256\.0 MiB`,
		"cache stat":   `(?s)^directory +\S+\nstore .*\nindex `,
		"cache verify": `0 blobs, 0 B read: 0 corrupt\n$`,
		"cache gc":     `^0 B given back\n$`,
		"bazelrc":      `remote_cache=grpc://127\.0\.0\.1:[1-9]\d*\n`, // of the running node, not of the configuration
		"bstconf":      `http://127\.0\.0\.1:[1-9]\d*"`,
		"doctor":       `(?s)^ok +state directory .*remote execution port +127\.0\.0\.1:0 is this node's`,
	} {
		got := u.typed(t, strings.Fields(line)...)
		if got.status != statusDone || !regexp.MustCompile(want).MatchString(got.out) {
			t.Errorf("%s: status %d, stderr %q\n%s\nwant %s", line, got.status, got.err, got.out, want)
		}
	}
	var object map[string]any
	if got := u.typed(t, "status", "--json"); json.Unmarshal([]byte(got.out), &object) != nil || object["peer_id"] == nil || object["store"] == nil {
		t.Errorf("status --json: %+v", got)
	}
	second := u.typed(t, "up", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0")
	if second.status != statusFailed || !strings.Contains(second.err, "in use by another node (pid ") || !strings.Contains(second.err, u.dir) {
		t.Errorf("a second node: %+v", second)
	}
	if got := u.typed(t, "cache", "verify", "--rate", "fast"); got.status != statusUsage {
		t.Errorf("a rate that is none: %+v", got)
	}
	if status := u.end(); status != statusDone {
		t.Errorf("up ended with %d: %s", status, u.err.String())
	}
	greeting := u.out.String()
	if !regexp.MustCompile(`(?s)^node .*endpoint .*store .*\nbuild --remote_cache=grpc://127\.0\.0\.1:\d+\n`).MatchString(greeting) || strings.Contains(greeting, "127.0.0.1:0\n") {
		t.Errorf("up greets with\n%s", greeting)
	}
	for _, verb := range []string{"status", "cache stat", "cache verify", "cache gc"} {
		got := u.typed(t, strings.Fields(verb)...)
		if got.status != statusNoNode || !strings.Contains(got.err, "start one with: buildmesh up") || got.out != "" {
			t.Errorf("%s without a node: %+v", verb, got)
		}
	}
	if got := u.typed(t, "doctor", "--set", "exec.enabled=false", "--listen", "off", "--web", "off"); got.status != statusDone || !strings.Contains(got.out, "no node runs") {
		t.Errorf("doctor without a node: %+v", got)
	}
}

func TestDoctorFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got := typed(t, "doctor", "--set", "dir.state="+file, "--set", "exec.enabled=false", "--listen", "off", "--web", "off")
	if got.status != statusFound || !strings.Contains(got.out, "FAILED   state directory") || !strings.Contains(got.out, "mend it: ") {
		t.Errorf("%+v", got)
	}
	if _, after, _ := strings.Cut(got.out, "\nFAILED "); strings.Contains(after, "\nok ") {
		t.Errorf("what is well stands behind what failed:\n%s", got.out)
	}
}

// TestSignal ends a node the way a terminal does.
func TestSignal(t *testing.T) {
	u := up(t)
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if status := u.wait(); status != statusDone || !strings.Contains(u.err.String(), "draining for at most 30s; interrupt again to stop at once\n") {
		t.Errorf("status %d, stderr %q", status, u.err.String())
	}
}

// TestVerifyFindsCorruption damages a blob on disk.
func TestVerifyFindsCorruption(t *testing.T) {
	u := up(t)
	data := bytes.Repeat([]byte("precious "), 100_000)
	d := digest.SHA256.Of(data)
	conn, err := grpc.NewClient("unix:"+filepath.Join(u.dir, "state", "run", "buildmesh.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = repb.NewContentAddressableStorageClient(conn).BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{
		Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: d.Proto(), Data: data}},
	})
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	err = filepath.WalkDir(u.dir, func(path string, e fs.DirEntry, err error) error {
		if info, infoErr := e.Info(); err != nil || infoErr != nil || info.Size() != int64(len(data)) {
			return err
		}
		damaged++
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, bytes.ToUpper(data), 0o600)
	})
	if err != nil || damaged != 1 {
		t.Fatalf("%d files damaged, %v", damaged, err)
	}
	got := u.typed(t, "cache", "verify")
	if got.status != statusFound || !strings.Contains(got.out, "corrupt, moved aside: "+d.String()) || !strings.Contains(got.out, ": 1 corrupt\n") {
		t.Errorf("%+v", got)
	}
	if again := u.typed(t, "cache", "verify"); again.status != statusDone {
		t.Errorf("what was moved aside is found again: %+v", again)
	}
}
