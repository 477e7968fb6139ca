package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/node/config"
	"github.com/buildmesh/buildmesh/node/control"
	"github.com/buildmesh/buildmesh/node/lock"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

func TestMain(m *testing.M) {
	Main() // this test binary is the init of the sandboxes it starts
	os.Exit(m.Run())
}

// configured is a configuration in dir that listens on ports nobody has.
func configured(t testing.TB, dir string, more ...string) *config.Config {
	t.Helper()
	settings := []config.Setting{
		{Key: "dir.base", Value: dir}, {Key: "listen.grpc", Value: "127.0.0.1:0"}, {Key: "listen.web", Value: "127.0.0.1:0"}, {Key: "listen.mesh", Value: "127.0.0.1:0"},
		{Key: "node.drain", Value: "10s"}, {Key: "store.max_size", Value: "256MiB"}, {Key: "exec.enabled", Value: "false"},
		{Key: "store.replicas", Value: "1"}, {Key: "mesh.audit", Value: "0"}, // who has what is what a test did
	}
	for _, pair := range more {
		key, value, _ := strings.Cut(pair, "=")
		settings = append(settings, config.Setting{Key: key, Value: value})
	}
	c, err := config.Load(config.Source{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// goroutines lists the stacks of all goroutines but those of the test framework and of the runtime, one
// string each. What runs finalizers shows up while it closes what an earlier test left to it.
func goroutines() []string {
	buffer := make([]byte, 1<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var out []string
	for _, stack := range strings.Split(string(buffer), "\n\n") {
		if !strings.Contains(stack, "testing.") && !strings.Contains(stack, "node.goroutines") &&
			!strings.Contains(stack, "runtime.runFinalizers") && !strings.Contains(stack, "runtime.runCleanups") {
			out = append(out, stack)
		}
	}
	return out
}

// noLeaks fails the test when, at its end, goroutines are left that were not there before, or mounts below the directories that it
// gave to nodes. It must be called before the node is made.
func noLeaks(t testing.TB) {
	t.Helper()
	before, dirs := len(goroutines()), filepath.Dir(t.TempDir())
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for len(goroutines()) > before && time.Now().Before(deadline) {
			runtime.Gosched() // a goroutine that was told to end may not have been scheduled yet
		}
		if after := goroutines(); len(after) > before {
			t.Errorf("%d goroutines before, %d after:\n%s", before, len(after), strings.Join(after, "\n\n"))
		}
		if left := mountsBelow(dirs); len(left) > 0 {
			t.Errorf("mounts were left behind: %q", left)
		}
	})
}

// mountsBelow is where something is mounted in this namespace below a directory, where the system tells; see
// proc_pid_mountinfo(5).
func mountsBelow(dir string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var below []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			below = append(below, fields[4])
		}
	}
	return below
}

// started is a node that runs until stop is called, which waits for its end.
type started struct {
	*Node
	cancel context.CancelFunc // tells it to end
	stop   func()             // the same, and waits
	conn   *grpc.ClientConn
}

// start runs a node and connects to its endpoint.
func start(t testing.TB, c *config.Config) *started {
	t.Helper()
	n, err := New(t.Context(), c, slog.New(slog.DiscardHandler), "test")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(n.grpcAt, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	var once sync.Once
	s := &started{Node: n, conn: conn, cancel: cancel, stop: func() {
		once.Do(func() {
			cancel()
			running.Wait()
			conn.Close()
		})
	}}
	t.Cleanup(s.stop)
	return s
}

// put stores a blob through the endpoint.
func (s *started) put(t testing.TB, data string) digest.Digest {
	t.Helper()
	d := digest.SHA256.Of([]byte(data))
	r, err := repb.NewContentAddressableStorageClient(s.conn).BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{
		Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: d.Proto(), Data: []byte(data)}},
	})
	if err != nil || r.Responses[0].Status.GetCode() != 0 {
		t.Fatalf("put: %v, %v", r, err)
	}
	return d
}

// missing reports whether the endpoint lacks a blob.
func (s *started) missing(t testing.TB, d digest.Digest) bool {
	t.Helper()
	r, err := repb.NewContentAddressableStorageClient(s.conn).FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{
		BlobDigests: []*repb.Digest{d.Proto()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return len(r.MissingBlobDigests) > 0
}

// page is the status and text of a page of the node's web.
func (s *started) page(t testing.TB, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + s.webAt.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func TestLifecycle(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	first := start(t, configured(t, dir, "exec.enabled=true"))
	blob := first.put(t, "a blob that stays")
	if first.missing(t, blob) {
		t.Fatal("what was just stored is missing")
	}
	if code, body := first.page(t, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d %s", code, body)
	}
	if _, body := first.page(t, "/metrics"); !strings.Contains(body, `method="BatchUpdateBlobs"`) || !strings.Contains(body, "buildmesh_store_blobs 2\n") {
		t.Errorf("metrics do not tell of the two blobs:\n%s", body)
	}
	client, err := control.Dial(t.Context(), filepath.Join(first.config.Dir.Runtime, control.File))
	if err != nil {
		t.Fatal(err)
	}
	status, err := client.Status(t.Context(), &controlv1.StatusRequest{})
	client.Close()
	if err != nil || status.PeerId != first.identity.ID().String() || status.Version != "test" || status.Store.Blobs != 2 {
		t.Errorf("status %v, %v", status, err)
	}
	unix, err := grpc.NewClient("unix:"+status.GrpcSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repb.NewCapabilitiesClient(unix).GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{}); err != nil {
		t.Errorf("endpoint on the unix socket: %v", err)
	}
	unix.Close()
	first.stop()
	if left, _ := filepath.Glob(filepath.Join(first.config.Dir.Runtime, "*")); len(left) > 0 {
		t.Errorf("sockets left behind: %v", left)
	}

	second := start(t, configured(t, dir))
	if second.missing(t, blob) || second.identity.ID() != first.identity.ID() {
		t.Error("after a restart the blob or the identity is gone")
	}
	second.stop()
}

func TestSecondInstance(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	first := start(t, configured(t, dir))
	quiet := slog.New(slog.DiscardHandler)
	var held *lock.HeldError
	if _, err := New(t.Context(), configured(t, dir), quiet, ""); !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("second node in the same directory: %v", err)
	}
	cache := configured(t, t.TempDir())
	cache.Dir.Cache = first.config.Dir.Cache
	if _, err := New(t.Context(), cache, quiet, ""); !errors.Is(err, cas.ErrLocked) {
		t.Errorf("second node on the same cache: %v", err)
	}
	socket := configured(t, t.TempDir())
	socket.Listen.Socket = first.config.Listen.Socket
	if _, err := New(t.Context(), socket, quiet, ""); !errors.Is(err, control.ErrAnswered) {
		t.Errorf("second node on the same socket: %v", err)
	}
	port := configured(t, t.TempDir())
	port.Listen.GRPC = first.grpcAt
	if _, err := New(t.Context(), port, quiet, ""); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("second node on the same port: %v", err)
	}
	if first.missing(t, first.put(t, "still there")) {
		t.Error("the refused nodes harmed the first one")
	}
	first.stop()
}

func TestRefusesTheNetwork(t *testing.T) {
	noLeaks(t)
	for _, setting := range []string{"listen.grpc=0.0.0.0:0", "listen.web=:0", "listen.grpc=somewhere.example:1", "listen.web=nonsense"} {
		c := configured(t, t.TempDir(), setting)
		if n, err := New(t.Context(), c, slog.New(slog.DiscardHandler), ""); err == nil {
			n.Close()
			t.Errorf("%s: listened", setting)
		}
	}
}

// TestDrain holds a call open while the node is told to stop: it drains until it is told to hurry.
func TestDrain(t *testing.T) {
	noLeaks(t)
	n := start(t, configured(t, t.TempDir(), "node.drain=1h"))
	watch, err := healthpb.NewHealthClient(n.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("before: %v, %v", first, err)
	}
	n.cancel()
	if next, err := watch.Recv(); err != nil || next.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("while draining: %v, %v", next, err)
	}
	if code, body := n.page(t, "/healthz"); code != http.StatusServiceUnavailable || body != "draining\n" {
		t.Errorf("healthz while draining: %d %q", code, body)
	}
	if !n.Snapshot().Draining {
		t.Error("the status does not say that the node drains")
	}
	n.Hurry()
	if _, err := watch.Recv(); err == nil {
		t.Error("the call that was broken off goes on")
	}
	n.stop()
}

func TestUnhealthy(t *testing.T) {
	noLeaks(t)
	n := start(t, configured(t, t.TempDir()))
	if err := n.Unhealthy(); err != nil {
		t.Errorf("healthy node: %v", err)
	}
	n.stop()
	if err := n.Unhealthy(); err == nil {
		t.Error("a node whose store is closed is healthy")
	}
}

func TestLoopback(t *testing.T) {
	l, err := listenLoopback("listen.grpc", "--listen", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, err = listenLoopback("listen.grpc", "--listen", "localhost:"+port)
	if err == nil || runtime.GOOS == "linux" && !strings.Contains(err.Error(), "(pid ") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// TestDoctor runs the checks beside a node and without one; they differ only in what is asked of the mesh.
func TestDoctor(t *testing.T) {
	noLeaks(t)
	c := configured(t, t.TempDir(), "exec.enabled=true")
	names := func(checks []*controlv1.Check) (out []string) {
		for _, c := range checks {
			out = append(out, c.Name)
		}
		return slices.Compact(out)
	}
	without := names(Doctor(t.Context(), c))
	begin := slices.Index(without, "mesh address")
	if begin < 0 || begin+1 >= len(without) || without[begin+1] != "multicast" {
		t.Fatalf("without a node %v", without)
	}
	without = slices.Delete(without, begin, begin+2)
	if left, _ := os.ReadDir(c.Dir.Base); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	n := start(t, c)
	beside := names(n.doctor(t.Context()))
	n.stop()
	company := slices.Index(beside, "mesh membership")
	if company < 0 || !slices.Contains(beside, "connections from members") {
		t.Fatalf("beside a node %v", beside)
	}
	end := slices.Index(beside, "connections from members") + 1
	members := slices.Clone(beside[company:end]) // of which some can be checked without a node
	beside = slices.Delete(beside, company, end)
	without = slices.DeleteFunc(without, func(name string) bool { return slices.Contains(members, name) })
	if !slices.Equal(without, beside) {
		t.Errorf("without a node %v\nbeside one   %v", without, beside)
	}
}

// TestLogIsSilent holds the node to a silent log in steady state.
func TestLogIsSilent(t *testing.T) {
	noLeaks(t)
	var out bytes.Buffer
	n, err := New(t.Context(), configured(t, t.TempDir()), slog.New(slog.NewTextHandler(&out, nil)), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if out.Len() > 0 && !strings.Contains(out.String(), "sandbox") {
		t.Errorf("logged: %s", out.String())
	}
}
