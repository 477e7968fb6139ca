package reapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/chunk"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// endpoint is a server on a loopback port with a client and everything behind it.
type endpoint struct {
	server  *Server
	store   *casfake.Store
	results *memoryResults
	log     *bytes.Buffer
	address string
	conn    *grpc.ClientConn

	cas     repb.ContentAddressableStorageClient
	cache   repb.ActionCacheClient
	streams bspb.ByteStreamClient
	caps    repb.CapabilitiesClient
}

// memoryResults is Results in a map. Whether a result is complete is not its business.
type memoryResults struct {
	mu sync.Mutex // guards m
	m  map[digest.Digest]*repb.ActionResult
}

func (r *memoryResults) Get(_ context.Context, action digest.Digest) (*repb.ActionResult, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if result, ok := r.m[action]; ok {
		return result, nil
	}
	return nil, fmt.Errorf("action %s: %w", action.Short(), cas.ErrNotFound)
}

func (r *memoryResults) Put(_ context.Context, action digest.Digest, result *repb.ActionResult) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m[action] = result
	return nil
}

// start makes an endpoint that ends with the test, which fails when goroutines are left.
func start(t testing.TB, change ...func(*Config)) *endpoint {
	t.Helper()
	before := runtime.NumGoroutine()
	e := &endpoint{
		store: casfake.New(cas.Options{}), results: &memoryResults{m: map[digest.Digest]*repb.ActionResult{}},
		log: &bytes.Buffer{},
	}
	config := Config{
		Blobs: e.store, Results: e.results, Name: "ana", Log: slog.New(slog.NewTextHandler(e.log, nil)),
		Limits: Limits{ChunkAverage: chunk.MinAverage},
	}
	for _, f := range change {
		f(&config)
	}
	var err error
	if e.server, err = New(config); err != nil {
		t.Fatal(err)
	}
	address, err := e.server.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.address = address.String()
	served := make(chan error, 1)
	go func() { served <- e.server.Serve() }()
	e.dial(t)
	t.Cleanup(func() {
		e.conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		checkGoroutines(t, before)
		if reserved := e.store.Stat().Reserved; reserved != 0 {
			t.Errorf("%d bytes are reserved for uploads that are no more", reserved)
		}
		if pinned := e.store.Stat().Pinned; pinned != 0 {
			t.Errorf("%d blobs are held by readers that are no more", pinned)
		}
	})
	return e
}

func (e *endpoint) dial(t testing.TB) {
	t.Helper()
	var err error
	e.conn, err = grpc.NewClient("passthrough:///"+e.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	e.cas, e.cache = repb.NewContentAddressableStorageClient(e.conn), repb.NewActionCacheClient(e.conn)
	e.streams, e.caps = bspb.NewByteStreamClient(e.conn), repb.NewCapabilitiesClient(e.conn)
}

// checkGoroutines waits until no more goroutines run than before: those of closed connections end
// by themselves, but not at once.
func checkGoroutines(t testing.TB, before int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			return
		}
		runtime.Gosched()
	}
}

// put stores content behind the endpoint's back.
func (e *endpoint) put(t testing.TB, fn digest.Function, data []byte) digest.Digest {
	t.Helper()
	d := fn.Of(data)
	if err := e.store.Put(t.Context(), d, data); err != nil {
		t.Fatal(err)
	}
	return d
}

// content is n bytes that compress a little and differ by seed.
func content(n int, seed byte) []byte {
	b := make([]byte, n)
	x := uint32(seed) + 1
	for i := range b {
		if i%4 == 0 {
			x = x*1664525 + 1013904223
		}
		b[i] = byte(x >> (8 * (i % 3)))
	}
	return b
}

// wantCode fails the test unless err has the code.
func wantCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s (%v), want %s", got, err, want)
	}
}

// write uploads data by name in messages of step bytes.
func (e *endpoint) write(t testing.TB, name string, data []byte, step int) (*bspb.WriteResponse, error) {
	t.Helper()
	return e.writeFrom(t, name, 0, data, step, true)
}

// writeFrom is write from an offset, with or without finish_write.
func (e *endpoint) writeFrom(t testing.TB, name string, offset int64, data []byte, step int, finish bool) (*bspb.WriteResponse, error) {
	t.Helper()
	stream, err := e.streams.Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for first := true; first || len(data) > 0; first = false {
		n := min(step, len(data))
		q := &bspb.WriteRequest{WriteOffset: offset, Data: data[:n], FinishWrite: finish && n == len(data)}
		if first {
			q.ResourceName = name
		}
		if err := stream.Send(q); err != nil {
			break // the status comes with the response
		}
		data, offset = data[n:], offset+int64(n)
	}
	return stream.CloseAndRecv()
}

// read downloads by name.
func (e *endpoint) read(t testing.TB, q *bspb.ReadRequest) ([]byte, error) {
	t.Helper()
	stream, err := e.streams.Read(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		data = append(data, r.Data...)
	}
}

// upload is the name to write d by.
func uploadName(d digest.Digest, c Compressor) string {
	name := "uploads/" + anUpload + "/"
	if c != Identity {
		return name + "compressed-blobs/" + c.String() + strings.TrimPrefix(BlobName(d), "blobs")
	}
	return name + BlobName(d)
}

// pack compresses data as a client would.
func pack(t testing.TB, c Compressor, data []byte) []byte {
	t.Helper()
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	var out bytes.Buffer
	w, err := p.pack(c, &out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpack reverses pack.
func unpack(t testing.TB, c Compressor, data []byte) []byte {
	t.Helper()
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	var out bytes.Buffer
	if err := p.expand(c, &out, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
