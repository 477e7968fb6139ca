package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fakeNode answers with what it holds.
type fakeNode struct {
	collectErr error
	blocked    chan struct{} // when set, Collect waits for it or its context
	entered    chan struct{} // closed when Collect was entered
}

func (f *fakeNode) Status(context.Context) *controlv1.StatusResponse {
	return &controlv1.StatusResponse{Name: "ana"}
}

func (f *fakeNode) Doctor(context.Context) []*controlv1.Check {
	return []*controlv1.Check{{Name: "disk", Verdict: controlv1.Check_VERDICT_OK}}
}

func (f *fakeNode) CacheStat(context.Context) *controlv1.CacheStatResponse {
	return &controlv1.CacheStatResponse{Store: &controlv1.Store{Blobs: 3, Bytes: 30}}
}

func (f *fakeNode) Verify(_ context.Context, rate int64, progress func(blobs, bytes int64)) (*controlv1.CacheVerifyResponse, error) {
	for i := range int64(1000) {
		progress(i, 10*i)
	}
	if rate == 13 {
		return nil, errors.New("disk on fire")
	}
	return &controlv1.CacheVerifyResponse{Blobs: 1000, Corrupt: []string{"abc/3"}}, nil
}

func (f *fakeNode) Collect(ctx context.Context) (int64, error) {
	if f.blocked != nil {
		close(f.entered)
		select {
		case <-f.blocked:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return 7, f.collectErr
}

// serve runs a Server for node until the test ends and gives a Client.
func serve(t *testing.T, node Node) (*Server, *Client) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", File)
	server, err := Listen(path, node)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		if err := server.Serve(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	client, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		server.Close(time.Second)
		served.Wait()
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket file stays behind")
		}
	})
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %v", name, info.Mode(), err, want)
		}
	}
	return server, client
}

func TestCalls(t *testing.T) {
	_, client := serve(t, &fakeNode{})
	ctx := t.Context()
	if got, err := client.Status(ctx, &controlv1.StatusRequest{}); err != nil || got.Name != "ana" {
		t.Errorf("Status: %v, %v", got, err)
	}
	if got, err := client.Doctor(ctx, &controlv1.DoctorRequest{}); err != nil || len(got.Checks) != 1 {
		t.Errorf("Doctor: %v, %v", got, err)
	}
	if got, err := client.CacheStat(ctx, &controlv1.CacheStatRequest{}); err != nil || got.Store.Blobs != 3 {
		t.Errorf("CacheStat: %v, %v", got, err)
	}
	if got, err := client.CacheCollect(ctx, &controlv1.CacheCollectRequest{}); err != nil || got.FreedBytes != 7 {
		t.Errorf("CacheCollect: %v, %v", got, err)
	}
}

// received is every message of one verification and how it ended.
func received(t *testing.T, client *Client, rate int64) ([]*controlv1.CacheVerifyResponse, error) {
	t.Helper()
	stream, err := client.CacheVerify(t.Context(), &controlv1.CacheVerifyRequest{BytesPerSecond: rate})
	if err != nil {
		t.Fatal(err)
	}
	var all []*controlv1.CacheVerifyResponse
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
}

func TestVerify(t *testing.T) {
	_, client := serve(t, &fakeNode{})
	all, err := received(t, client, 0)
	if err != nil || len(all) < 2 || len(all) > 20 {
		t.Fatalf("%d messages for 1000 steps, %v", len(all), err)
	}
	last := all[len(all)-1]
	if !last.Done || len(last.Corrupt) != 1 || all[0].Done || all[0].TotalBlobs != 3 {
		t.Errorf("first %v, last %v", all[0], last)
	}
	if _, err := received(t, client, -1); status.Code(err) != codes.InvalidArgument {
		t.Errorf("negative rate: %v", err)
	}
	if _, err := received(t, client, 13); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("failing verification: %v", err)
	}
}

func TestErrorIsTold(t *testing.T) {
	_, client := serve(t, &fakeNode{collectErr: errors.New("disk on fire")})
	_, err := client.CacheCollect(t.Context(), &controlv1.CacheCollectRequest{})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("got %v", err)
	}
}

// TestCloseCutsOff shows that a call that never ends does not hold up a shutdown.
func TestCloseCutsOff(t *testing.T) {
	node := &fakeNode{blocked: make(chan struct{}), entered: make(chan struct{})}
	server, client := serve(t, node)
	var called sync.WaitGroup
	called.Go(func() {
		if _, err := client.CacheCollect(t.Context(), &controlv1.CacheCollectRequest{}); err == nil {
			t.Error("a call that was cut off succeeded")
		}
	})
	<-node.entered
	server.Close(10 * time.Millisecond)
	called.Wait()
}

func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	first, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path); !errors.Is(err, ErrAnswered) {
		t.Errorf("beside a living listener: %v, want ErrAnswered", err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	again, err := ListenUnix(path)
	if err != nil {
		t.Fatalf("over a socket nobody answers on: %v", err)
	}
	again.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path); err == nil {
		t.Error("a plain file was taken for a socket")
	}
	if data, _ := os.ReadFile(path); string(data) != "precious" {
		t.Error("the plain file was harmed")
	}
	if _, err := ListenUnix(filepath.Join(dir, strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "dir.runtime") {
		t.Errorf("a path too long: %v", err)
	}
}

func TestDialNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := Dial(t.Context(), path); !errors.Is(err, ErrNoNode) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want ErrNoNode with the path", err)
	}
}
