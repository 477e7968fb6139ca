package reapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// TestServer takes one blob in and out in every form, through a real connection.
func TestServer(t *testing.T) {
	for _, fn := range digest.Functions() {
		for _, c := range append(Compressors(), Identity) {
			t.Run(fn.String()+"/"+c.String(), func(t *testing.T) {
				e := start(t)
				data := content(3<<20+17, 1)
				d := fn.Of(data)
				wire := data
				if c != Identity {
					wire = pack(t, c, data)
				}
				r, err := e.write(t, uploadName(d, c), wire, 1<<16)
				if err != nil {
					t.Fatal(err)
				}
				if r.CommittedSize != int64(len(wire)) {
					t.Errorf("committed %d of %d bytes", r.CommittedSize, len(wire))
				}
				find, err := e.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{
					BlobDigests: []*repb.Digest{d.Proto(), fn.Of([]byte("x")).Proto()}, DigestFunction: fn.Proto(),
				})
				if err != nil || len(find.MissingBlobDigests) != 1 || find.MissingBlobDigests[0].Hash != fn.Of([]byte("x")).Hex() {
					t.Errorf("missing %v, %v", find, err)
				}
				name := BlobName(d)
				if c != Identity {
					name = "compressed-blobs/" + c.String() + name[len("blobs"):]
				}
				back, err := e.read(t, &bspb.ReadRequest{ResourceName: name})
				if err != nil {
					t.Fatal(err)
				}
				if c != Identity {
					back = unpack(t, c, back)
				}
				if !bytes.Equal(back, data) {
					t.Errorf("%d bytes came back, not those of the blob", len(back))
				}
			})
		}
	}
}

func TestListenRefusesOtherMachines(t *testing.T) {
	e := start(t)
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.org:0", "nonsense"} {
		if a, err := e.server.Listen("tcp", address); err == nil {
			t.Errorf("listens on %s for %s", a, address)
		}
	}
}

// TestNothingIsUnimplemented calls every method of every registered service with nothing.
func TestNothingIsUnimplemented(t *testing.T) {
	e := start(t)
	for service, info := range e.server.grpc.GetServiceInfo() {
		for _, method := range info.Methods {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			stream, err := e.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+service+"/"+method.Name)
			if err != nil {
				t.Fatal(err)
			}
			if !method.IsClientStream {
				err = stream.SendMsg(&repb.GetCapabilitiesRequest{})
			}
			if err == nil {
				err = stream.CloseSend()
			}
			if err == nil && method.Name != "Watch" && method.Name != "List" {
				err = stream.RecvMsg(&repb.GetCapabilitiesRequest{})
			}
			if code := status.Code(err); code == codes.Unimplemented || code == codes.DeadlineExceeded {
				t.Errorf("%s/%s: %v", service, method.Name, err)
			}
			cancel()
		}
	}
}

// TestPanicIsInternal panics below a unary and a streaming call: each client gets Internal, the log
// one record, and the server goes on.
func TestPanicIsInternal(t *testing.T) {
	e := start(t, func(c *Config) { c.Blobs = panickingBlobs{c.Blobs} })
	_, err := e.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{})
	wantCode(t, err, codes.Internal)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the client learns %v", err)
	}
	_, err = e.read(t, &bspb.ReadRequest{ResourceName: BlobName(abc)})
	wantCode(t, err, codes.Internal)
	if _, err := e.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{}); err != nil {
		t.Error(err)
	}
	if n := strings.Count(e.log.String(), "secret"); n != 2 {
		t.Errorf("%d log records for 2 panics:\n%s", n, e.log)
	}
}

// panickingBlobs panics.
type panickingBlobs struct{ Blobs }

func (panickingBlobs) Missing(context.Context, []digest.Digest) ([]digest.Digest, error) {
	panic("secret")
}

func (panickingBlobs) NewReader(context.Context, digest.Digest) (*cas.Reader, error) {
	panic("secret")
}

// calls records what an Observer is told.
type calls struct {
	mu    sync.Mutex // guards the rest
	began []string
	ended []string
}

func (c *calls) Began(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = append(c.began, method)
}

func (c *calls) Ended(method string, code codes.Code, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = append(c.ended, fmt.Sprintf("%s %s %t", method, code, took > 0))
}

func TestObserverSeesEveryCallOnce(t *testing.T) {
	c := &calls{}
	e := start(t, func(config *Config) { config.Observer = c })
	_, err := e.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{InstanceName: "blobs"})
	wantCode(t, err, codes.InvalidArgument)
	_, err = e.read(t, &bspb.ReadRequest{ResourceName: BlobName(digest.SHA256.Empty())})
	wantCode(t, err, codes.OK)
	e.await(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.ended) == 2 })
	const find, read = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs", "/google.bytestream.ByteStream/Read"
	if !slices.Equal(c.began, []string{find, read}) || !slices.Equal(c.ended, []string{find + " InvalidArgument true", read + " OK true"}) {
		t.Errorf("began %q, ended %q", c.began, c.ended)
	}
}

func TestUnixSocketAndHealth(t *testing.T) {
	e := start(t)
	path := filepath.Join(t.TempDir(), "s")
	other, err := New(Config{Blobs: e.store, Results: e.results, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Listen("unix", path); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- other.Serve() }()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", r, err)
	}
	if err := other.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("socket is left: %v", err)
	}
}

// TestShutdownIsBounded ends a server while a client holds a stream open.
func TestShutdownIsBounded(t *testing.T) {
	store := casfake.New(cas.Options{})
	s, err := New(Config{Blobs: store, Results: &memoryResults{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	address, err := s.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	e := &endpoint{address: address.String(), server: s, store: store}
	e.dial(t)
	defer e.conn.Close()
	stream, err := e.streams.Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&bspb.WriteRequest{ResourceName: uploadName(abc, Identity), Data: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	e.await(t, func() bool { return store.Stat().Reserved > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if reserved := store.Stat().Reserved; reserved != 0 {
		t.Errorf("%d bytes are still reserved", reserved)
	}
}

func TestServeNeedsAListener(t *testing.T) {
	s, err := New(Config{Blobs: casfake.New(cas.Options{}), Results: &memoryResults{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(); err == nil {
		t.Error("serves nothing")
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
