package reapi

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// The benchmarks measure the endpoint over a loopback connection, client included, and report its
// speed as a share of a bare gRPC server's that moves the same messages without looking at them,
// measured in the same run. Streams go into a store that only hashes and come from memory, so that
// what is measured is the endpoint.

const benchBlob = 256 << 20

// streamStore is a store whose large blobs are written nowhere and read from one buffer.
type streamStore struct {
	Blobs
	data []byte // what every blob repeats
}

func (s *streamStore) NewWriter(_ context.Context, d digest.Digest) (*cas.Writer, error) {
	return cas.NewWriter(d, nowhere{}), nil
}

func (s *streamStore) NewReader(_ context.Context, d digest.Digest) (*cas.Reader, error) {
	return cas.NewReader(repeated(s.data), d.Size()), nil
}

// nowhere is a cas.Sink that forgets.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) Commit() error               { return nil }
func (nowhere) Abort()                      {}

// repeated is a cas.Source that repeats its bytes without end.
type repeated []byte

func (r repeated) ReadAt(b []byte, at int64) (int, error) {
	for n := 0; n < len(b); {
		n += copy(b[n:], r[(int(at)+n)%len(r):])
	}
	return len(b), nil
}
func (r repeated) Close() error { return nil }

// bareServer answers each call of its services with the same message and looks at nothing.
type bareServer struct {
	repb.UnimplementedContentAddressableStorageServer
	repb.UnimplementedActionCacheServer
	bspb.UnimplementedByteStreamServer
	find   *repb.FindMissingBlobsResponse
	update *repb.BatchUpdateBlobsResponse
	batch  *repb.BatchReadBlobsResponse
	result *repb.ActionResult
}

func (s *bareServer) FindMissingBlobs(context.Context, *repb.FindMissingBlobsRequest) (*repb.FindMissingBlobsResponse, error) {
	return s.find, nil
}

func (s *bareServer) BatchUpdateBlobs(context.Context, *repb.BatchUpdateBlobsRequest) (*repb.BatchUpdateBlobsResponse, error) {
	return s.update, nil
}

func (s *bareServer) BatchReadBlobs(context.Context, *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error) {
	return s.batch, nil
}

func (s *bareServer) GetActionResult(context.Context, *repb.GetActionResultRequest) (*repb.ActionResult, error) {
	if s.result == nil {
		return nil, status.Error(codes.NotFound, "not found")
	}
	return s.result, nil
}

func (s *bareServer) Read(q *bspb.ReadRequest, stream bspb.ByteStream_ReadServer) error {
	r := &bspb.ReadResponse{Data: make([]byte, readChunk)}
	for left := benchBlob; left > 0; left -= len(r.Data) {
		if err := stream.Send(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *bareServer) Write(stream bspb.ByteStream_WriteServer) error {
	for {
		if _, err := stream.Recv(); err == io.EOF {
			return stream.SendAndClose(&bspb.WriteResponse{CommittedSize: benchBlob})
		} else if err != nil {
			return err
		}
	}
}

// bare starts s and gives a client connection.
func bare(b *testing.B, s *bareServer) *grpc.ClientConn {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	repb.RegisterContentAddressableStorageServer(server, s)
	repb.RegisterActionCacheServer(server, s)
	bspb.RegisterByteStreamServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-done
	})
	return conn
}

// spent is what a number of calls took.
type spent struct{ wall, cpu time.Duration }

// measure adds what f takes.
func (s *spent) measure(f func()) {
	wall, cpu := time.Now(), cpuTime()
	f()
	s.wall += time.Since(wall)
	s.cpu += cpuTime() - cpu
}

// compare measures call against the endpoint and reference, the same against the bare server, in
// turns so that other load on the machine hits both. It reports the speed as a share of the bare
// server's by the clock and by processor time, which is what counts when client and server share
// two cores. Both are made by callers goroutines.
func compare(b *testing.B, callers int, call, reference func() error) {
	b.Helper()
	for range 3 { // connections are made, buffers are warm
		if err := call(); err != nil {
			b.Fatal(err)
		}
		if err := reference(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	var ours, theirs spent
	n := 0
	for b.Loop() {
		ours.measure(func() { each(b, callers, call) })
		b.StopTimer()
		theirs.measure(func() { each(b, callers, reference) })
		b.StartTimer()
		n += callers
		if callers > 1 {
			n += callers * (burst - 1)
		}
	}
	b.ReportMetric(float64(n)/ours.wall.Seconds(), "calls/s")
	b.ReportMetric(float64(theirs.wall)/float64(ours.wall), "of-bare")
	if ours.cpu > 0 {
		b.ReportMetric(float64(theirs.cpu)/float64(ours.cpu), "of-bare-cpu")
		b.ReportMetric(float64(ours.cpu.Microseconds())/float64(n), "cpu-us/call")
	}
}

// burst is how many calls each caller makes in one iteration when there are several.
const burst = 64

// each makes the call once, or burst times from several callers at once.
func each(b *testing.B, callers int, call func() error) {
	if callers == 1 {
		if err := call(); err != nil {
			b.Error(err)
		}
		return
	}
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range burst {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// numbered is n distinct blobs of size bytes.
func numbered(n, size int) []cas.Blob {
	blobs := make([]cas.Blob, n)
	for i := range blobs {
		data := make([]byte, size)
		copy(data, content(min(size, 64), byte(i)))
		binary.LittleEndian.PutUint64(data, uint64(i))
		blobs[i] = cas.Blob{Digest: digest.SHA256.Of(data), Data: data}
	}
	return blobs
}

func BenchmarkFindMissing10000(b *testing.B) {
	e := start(b)
	blobs := numbered(10_000, 8)
	if errs := e.store.PutBatch(b.Context(), blobs[:9_000]); errs != nil {
		b.Fatal(errs)
	}
	q := &repb.FindMissingBlobsRequest{}
	for _, blob := range blobs {
		q.BlobDigests = append(q.BlobDigests, blob.Digest.Proto())
	}
	find := &repb.FindMissingBlobsResponse{MissingBlobDigests: q.BlobDigests[9_000:]}
	other := repb.NewContentAddressableStorageClient(bare(b, &bareServer{find: find}))
	compare(b, 1, func() error { _, err := e.cas.FindMissingBlobs(b.Context(), q); return err },
		func() error { _, err := other.FindMissingBlobs(b.Context(), q); return err })
}

func BenchmarkBatchUpdate100x1K(b *testing.B) {
	e := start(b)
	q, u := &repb.BatchUpdateBlobsRequest{}, &repb.BatchUpdateBlobsResponse{}
	for _, blob := range numbered(100, 1<<10) {
		q.Requests = append(q.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: blob.Digest.Proto(), Data: blob.Data})
		u.Responses = append(u.Responses, &repb.BatchUpdateBlobsResponse_Response{Digest: blob.Digest.Proto()})
	}
	other := repb.NewContentAddressableStorageClient(bare(b, &bareServer{update: u}))
	compare(b, 1, func() error { _, err := e.cas.BatchUpdateBlobs(b.Context(), q); return err },
		func() error { _, err := other.BatchUpdateBlobs(b.Context(), q); return err })
}

func BenchmarkBatchRead100x1K(b *testing.B) {
	e := start(b)
	blobs := numbered(100, 1<<10)
	if errs := e.store.PutBatch(b.Context(), blobs); errs != nil {
		b.Fatal(errs)
	}
	q, r := &repb.BatchReadBlobsRequest{}, &repb.BatchReadBlobsResponse{}
	for _, blob := range blobs {
		q.Digests = append(q.Digests, blob.Digest.Proto())
		r.Responses = append(r.Responses, &repb.BatchReadBlobsResponse_Response{Digest: blob.Digest.Proto(), Data: blob.Data})
	}
	other := repb.NewContentAddressableStorageClient(bare(b, &bareServer{batch: r}))
	compare(b, 1, func() error { _, err := e.cas.BatchReadBlobs(b.Context(), q); return err },
		func() error { _, err := other.BatchReadBlobs(b.Context(), q); return err })
}

// aResult is a compilation's result.
func aResult() *repb.ActionResult {
	return &repb.ActionResult{
		OutputFiles: []*repb.OutputFile{
			{Path: "bazel-out/k8-fastbuild/bin/lib/_objs/lib/file.o", Digest: abc.Proto()},
			{Path: "bazel-out/k8-fastbuild/bin/lib/_objs/lib/file.d", Digest: abc.Proto()},
		},
		StdoutDigest:      digest.SHA256.Empty().Proto(),
		ExecutionMetadata: &repb.ExecutedActionMetadata{Worker: "ana"},
	}
}

func benchResult(b *testing.B, callers int) {
	e := start(b)
	e.results.m[abc] = aResult()
	q := &repb.GetActionResultRequest{ActionDigest: abc.Proto()}
	other := repb.NewActionCacheClient(bare(b, &bareServer{result: aResult()}))
	compare(b, callers, func() error { _, err := e.cache.GetActionResult(b.Context(), q); return err },
		func() error { _, err := other.GetActionResult(b.Context(), q); return err })
}

// BenchmarkGetActionResultMiss32 asks for what is not there; the bare server knows that at once.
func BenchmarkGetActionResultMiss32(b *testing.B) {
	e := start(b)
	q := &repb.GetActionResultRequest{ActionDigest: abc.Proto()}
	other := repb.NewActionCacheClient(bare(b, &bareServer{}))
	miss := func(_ *repb.ActionResult, err error) error {
		if status.Code(err) != codes.NotFound {
			return fmt.Errorf("a miss ended with %w", err)
		}
		return nil
	}
	compare(b, 32, func() error { return miss(e.cache.GetActionResult(b.Context(), q)) },
		func() error { return miss(other.GetActionResult(b.Context(), q)) })
}

func BenchmarkGetActionResult1(b *testing.B)  { benchResult(b, 1) }
func BenchmarkGetActionResult32(b *testing.B) { benchResult(b, 32) }

// sink reads a whole blob.
func sink(b *testing.B, client bspb.ByteStreamClient, name string) error {
	stream, err := client.Read(b.Context(), &bspb.ReadRequest{ResourceName: name})
	if err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// pour writes a whole blob that repeats wire.
func pour(b *testing.B, client bspb.ByteStreamClient, name string, wire []byte, repeat int) error {
	stream, err := client.Write(b.Context())
	if err != nil {
		return err
	}
	q := &bspb.WriteRequest{ResourceName: name, Data: wire}
	for i := range repeat {
		q.FinishWrite = i == repeat-1
		if err := stream.Send(q); err != nil {
			break
		}
		q.WriteOffset += int64(len(wire))
	}
	_, err = stream.CloseAndRecv()
	return err
}

func BenchmarkRead256M(b *testing.B) {
	data := content(readChunk, 1)
	e := start(b, func(c *Config) { c.Blobs = &streamStore{Blobs: c.Blobs, data: data} })
	other := bspb.NewByteStreamClient(bare(b, &bareServer{}))
	name := BlobName(digest.New(digest.SHA256, abc.Hash(), benchBlob))
	b.SetBytes(benchBlob)
	compare(b, 1, func() error { return sink(b, e.streams, name) }, func() error { return sink(b, other, name) })
}

func benchWrite(b *testing.B, c Compressor, fn digest.Function) {
	data := content(1<<20, 1)
	e := start(b, func(c *Config) { c.Blobs = &streamStore{Blobs: c.Blobs, data: data} })
	other := bspb.NewByteStreamClient(bare(b, &bareServer{}))
	hasher := fn.NewHasher()
	for range benchBlob / len(data) {
		hasher.Write(data)
	}
	if c != Identity {
		data = pack(b, c, data)
	}
	name := uploadName(hasher.Digest(), c)
	b.SetBytes(benchBlob)
	n := benchBlob / (1 << 20)
	compare(b, 1, func() error { return pour(b, e.streams, name, data, n) }, func() error { return pour(b, other, name, data, n) })
}

func BenchmarkWrite256M(b *testing.B)       { benchWrite(b, Identity, digest.SHA256) }
func BenchmarkWrite256MBlake3(b *testing.B) { benchWrite(b, Identity, digest.BLAKE3) }
func BenchmarkWrite256MZstd(b *testing.B)   { benchWrite(b, Zstd, digest.SHA256) }

func BenchmarkHash(b *testing.B) {
	data := content(1<<20, 1)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		digest.SHA256.Of(data)
	}
}
