package asset

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// endpoint is the services over gRPC, with a real index over the fake blob store.
type endpoint struct {
	blobs   *casfake.Store
	service *Service
	fetch   rapb.FetchClient
	push    rapb.PushClient
}

// loopback may be connected to in tests; 127.0.0.2 may not.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

func start(t testing.TB, o Options) *endpoint {
	t.Helper()
	e := &endpoint{blobs: casfake.New(cas.Options{})}
	x, err := index.Open(t.TempDir(), e.blobs, index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	if e.service, err = New(x, e.blobs, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.service.Close)
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	e.service.Register(server)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	e.fetch, e.push = rapb.NewFetchClient(conn), rapb.NewPushClient(conn)
	return e
}

// startDownloads is start with downloads from this machine's 127.0.0.1 allowed.
func startDownloads(t testing.TB, change func(*Options)) *endpoint {
	t.Helper()
	o := Options{Dir: t.TempDir(), Allowed: loopback}
	if change != nil {
		change(&o)
	}
	return start(t, o)
}

func (e *endpoint) store(t testing.TB, fn digest.Function, content []byte) *repb.Digest {
	t.Helper()
	d := fn.Of(content)
	if err := e.blobs.Put(t.Context(), d, content); err != nil {
		t.Fatal(err)
	}
	return d.Proto()
}

func (e *endpoint) message(t testing.TB, m proto.Message) *repb.Digest {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return e.store(t, digest.SHA256, data)
}

// download asks for URIs and wants them delivered.
func (e *endpoint) download(t testing.TB, q *rapb.FetchBlobRequest) *rapb.FetchBlobResponse {
	t.Helper()
	r, err := e.fetch.FetchBlob(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status.GetCode() != 0 {
		t.Fatalf("upstream: %v", r.Status)
	}
	return r
}

// site is a web server that counts requests.
type site struct {
	*httptest.Server
	requests atomic.Int64
}

func serve(t testing.TB, handler http.HandlerFunc) *site {
	t.Helper()
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func qualifier(name, value string) *rapb.Qualifier { return &rapb.Qualifier{Name: name, Value: value} }

func wantCode(t testing.TB, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}
