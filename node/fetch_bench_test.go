package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/fetch"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/mesh/transport/transporttest"
)

// nobody is an empty roster: who has something is told by hints.
type nobody struct{}

func (nobody) Members() []locate.Member { return nil }

// fetching are two members over the real transport on loopback: what the first has, the second fetches.
type fetching struct {
	nodes []*transporttest.Node
	has   *cas.Store
}

func newFetching(b *testing.B) *fetching {
	b.Helper()
	f := &fetching{has: openStore(b)}
	f.nodes = transporttest.Start(b, 2, func(i int, _, bulk grpc.ServiceRegistrar) {
		if i == 0 {
			share.NewBlobs(f.has, share.NewGuard(transport.Caller, 0), &share.Private{}).Register(bulk)
		}
	})
	return f
}

func openStore(b *testing.B) *cas.Store {
	b.Helper()
	s, err := cas.Open(b.TempDir(), cas.Options{MaxBytes: 8 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// fill stores n blobs that nobody else makes.
func (f *fetching) fill(b *testing.B, n int, size int64) []digest.Digest {
	b.Helper()
	ds := make([]digest.Digest, n)
	data := make([]byte, size)
	for i := range ds {
		var seed [32]byte
		binary.BigEndian.PutUint64(seed[:], uint64(i))
		mrand.NewChaCha8(seed).Read(data)
		ds[i] = digest.SHA256.Of(data)
		if err := f.has.Put(b.Context(), ds[i], data); err != nil {
			b.Fatal(err)
		}
	}
	return ds
}

// warm writes and removes a file in dir of somewhat more bytes than the next step stores. In a virtual machine the first touch of a
// free page costs more than all of a fetch, and would be charged to whoever stores something.
func warm(b *testing.B, dir string, bytes int) {
	b.Helper()
	ground, err := os.Create(filepath.Join(dir, "ground"))
	if err != nil {
		b.Fatal(err)
	}
	piece := make([]byte, 1<<20)
	for at := 0; at < bytes+bytes/4 && err == nil; at += len(piece) {
		_, err = ground.Write(piece)
	}
	if err := errors.Join(err, ground.Close(), os.Remove(ground.Name())); err != nil {
		b.Fatal(err)
	}
}

// alone gives the time that use takes with an empty store when nothing else is under way: what it stored is removed before it
// is written to disk, which would go on during the next step.
func alone(b *testing.B, bytes int, use func(to *cas.Store)) time.Duration {
	b.Helper()
	dir := b.TempDir()
	to, err := cas.Open(dir, cas.Options{MaxBytes: 8 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer to.Close()
	defer os.RemoveAll(dir)
	warm(b, dir, bytes)
	began := time.Now()
	use(to)
	return time.Since(began)
}

// fetch has the second member fetch blobs into an empty store and gives the time.
func (f *fetching) fetch(b *testing.B, ds []digest.Digest) time.Duration {
	b.Helper()
	to := openStore(b)
	began := time.Now()
	f.fetchTo(b, to, ds)
	return time.Since(began)
}

// fetchTo has the second member fetch blobs into a store.
func (f *fetching) fetchTo(b *testing.B, to *cas.Store, ds []digest.Digest) {
	b.Helper()
	fetcher := fetch.New(fetch.Options{Store: to, Dialer: f.nodes[1], Members: nobody{}, Keyer: cid.NewKeyer(nil)})
	missing, err := fetcher.Fetch(b.Context(), ds, []peer.ID{f.nodes[0].ID()})
	if err != nil || len(missing) > 0 {
		b.Fatalf("%d missing, %v", len(missing), err)
	}
}

// BenchmarkFetchSmall fetches 10,000 blobs of 4 KiB from one member, and in the same run stores them without any network: what
// fetching takes beyond hashing and writing. Run it:
//
//	go test ./node -run '^$' -bench FetchSmall -benchtime 5x
func BenchmarkFetchSmall(b *testing.B) {
	const n = 10_000
	f := newFetching(b)
	ds := f.fill(b, n, 4<<10)
	f.fetch(b, ds[:1]) // connects
	data, err := f.has.GetBatch(b.Context(), ds)
	if err != nil {
		b.Fatal(err)
	}
	var fetched, stored time.Duration
	for b.Loop() {
		fetched += f.fetch(b, ds)
		to, began := openStore(b), time.Now()
		blobs := make([]cas.Blob, n)
		for i := range blobs {
			blobs[i] = cas.Blob{Digest: ds[i], Data: data[i]}
		}
		for _, err := range to.PutBatch(b.Context(), blobs) {
			if err != nil {
				b.Fatal(err)
			}
		}
		stored += time.Since(began)
	}
	b.ReportMetric(float64(n*b.N)/fetched.Seconds(), "blobs/s")
	b.ReportMetric(fetched.Seconds()/stored.Seconds(), "fetched/stored")
}

// BenchmarkFetchLarge fetches a blob of 1 GiB, verified and written, from one member; in the same run plain gRPC with mutual
// TLS sends as much, in the same messages, from memory to nowhere (of-gRPC), and from memory to a store that verifies and writes
// it too (of-gRPC-stored). Each figure is the median of the rounds' own, so that what else the machine does weighs little. Run it:
//
//	go test ./node -run '^$' -bench FetchLarge -benchtime 5x
func BenchmarkFetchLarge(b *testing.B) {
	const size = 1 << 30
	f := newFetching(b)
	large := f.fill(b, 1, size)
	f.fetch(b, f.fill(b, 1, 1))                           // connects
	if _, err := f.has.Collect(b.Context()); err != nil { // else it is written to disk meanwhile
		b.Fatal(err)
	}
	plain := plainStream(b, size)
	empty := digest.SHA256.Of(make([]byte, size))
	var speeds, ofSent, ofStored []float64
	for b.Loop() {
		fetched := alone(b, size, func(to *cas.Store) { f.fetchTo(b, to, large) })
		sent := alone(b, size, func(*cas.Store) { plain(io.Discard) })
		stored := alone(b, size, func(to *cas.Store) {
			w, err := to.NewWriter(b.Context(), empty)
			if err != nil {
				b.Fatal(err)
			}
			plain(w)
			if err := w.Commit(); err != nil {
				b.Fatal(err)
			}
		})
		speeds = append(speeds, size/fetched.Seconds()/(1<<20))
		ofSent = append(ofSent, sent.Seconds()/fetched.Seconds())
		ofStored = append(ofStored, stored.Seconds()/fetched.Seconds())
	}
	b.ReportMetric(median(speeds), "MiB/s")
	b.ReportMetric(median(ofSent), "of-gRPC")
	b.ReportMetric(median(ofStored), "of-gRPC-stored")
}

// median is the middle one.
func median(figures []float64) float64 {
	slices.Sort(figures)
	return figures[len(figures)/2]
}

// BenchmarkHitOutputs is what the two ways of a hit cost until its outputs, eight of 16 KiB, have been read: all fetched in one batch
// before the hit is given, or each when it is asked for. Beside it, what a hit costs whose outputs nobody reads. Run it:
//
//	go test ./node -run '^$' -bench HitOutputs -benchtime 200x
func BenchmarkHitOutputs(b *testing.B) {
	const outputs = 8
	f := newFetching(b)
	f.fetch(b, f.fill(b, 1, 1)) // connects
	to := openStore(b)
	fetcher := fetch.New(fetch.Options{Store: to, Dialer: f.nodes[1], Members: nobody{}, Keyer: cid.NewKeyer(nil)})
	from := []peer.ID{f.nodes[0].ID()}
	get := func(ds ...digest.Digest) {
		if missing, err := fetcher.Fetch(b.Context(), ds, from); err != nil || len(missing) > 0 {
			b.Fatalf("%d missing, %v", len(missing), err)
		}
	}
	var whole, demand time.Duration
	data := make([]byte, 16<<10)
	for b.Loop() {
		ds := make([]digest.Digest, 2*outputs)
		for i := range ds {
			binary.BigEndian.PutUint64(data, mrand.Uint64())
			ds[i] = digest.SHA256.Of(data)
			if err := f.has.Put(b.Context(), ds[i], data); err != nil {
				b.Fatal(err)
			}
		}
		began := time.Now()
		get(ds[:outputs]...)
		whole += time.Since(began)
		began = time.Now()
		for _, d := range ds[outputs:] {
			get(d)
		}
		demand += time.Since(began)
	}
	b.ReportMetric(whole.Seconds()*1000/float64(b.N), "complete-ms")
	b.ReportMetric(demand.Seconds()*1000/float64(b.N), "on-demand-ms")
	b.ReportMetric(demand.Seconds()/whole.Seconds(), "on-demand/complete")
}

// BenchmarkFetchTree fetches the directories of an input root, eight levels deep, whole in one call, and in the same run level by
// level; files are left out. Run it:
//
//	go test ./node -run '^$' -bench FetchTree -benchtime 20x
func BenchmarkFetchTree(b *testing.B) {
	f := newFetching(b)
	var grow func(name string, levels int) digest.Digest
	grow = func(name string, levels int) digest.Digest {
		dir := &repb.Directory{}
		for i := range 10 {
			file := fmt.Sprint(name, i)
			dir.Files = append(dir.Files, &repb.FileNode{Name: "file" + file, Digest: digest.SHA256.Of([]byte(file)).Proto()})
		}
		for i := 0; levels > 1 && i < 2; i++ {
			sub := fmt.Sprint("sub", i)
			dir.Directories = append(dir.Directories, &repb.DirectoryNode{Name: sub, Digest: grow(name+sub, levels-1).Proto()})
		}
		data, err := proto.Marshal(dir)
		if err != nil {
			b.Fatal(err)
		}
		d := digest.SHA256.Of(data)
		if err := f.has.Put(b.Context(), d, data); err != nil {
			b.Fatal(err)
		}
		return d
	}
	root := grow("", 8)
	fetched := func(whole bool) time.Duration {
		to := openStore(b)
		from := []peer.ID{f.nodes[0].ID()}
		levels := &levelByLevel{fetcher: fetch.New(fetch.Options{Store: to, Dialer: f.nodes[1], Members: nobody{}, Keyer: cid.NewKeyer(nil)}), store: to, from: from}
		began := time.Now()
		if whole {
			if _, err := levels.fetcher.FetchTree(b.Context(), root, from); err != nil {
				b.Fatal(err)
			}
		}
		t, err := tree.Load(b.Context(), levels, root, tree.Limits{})
		if err != nil || len(t.Directories()) != 255 {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	fetched(true) // connects
	var whole, level time.Duration
	for b.Loop() {
		whole += fetched(true)
		level += fetched(false)
	}
	b.ReportMetric(whole.Seconds()*1000/float64(b.N), "whole-ms")
	b.ReportMetric(level.Seconds()*1000/float64(b.N), "levels-ms")
	b.ReportMetric(level.Seconds()/whole.Seconds(), "levels/whole")
}

// levelByLevel reads directories and fetches them first.
type levelByLevel struct {
	fetcher *fetch.Fetcher
	store   *cas.Store
	from    []peer.ID
}

func (l *levelByLevel) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	if _, err := l.fetcher.Fetch(ctx, ds, l.from); err != nil {
		return nil, err
	}
	return l.store.GetBatch(ctx, ds)
}

// zeros sends a stream of bytes from memory.
type zeros struct {
	bspb.UnimplementedByteStreamServer
	size int64
}

func (z *zeros) Read(_ *bspb.ReadRequest, to bspb.ByteStream_ReadServer) error {
	chunk := make([]byte, 256<<10)
	for sent := int64(0); sent < z.size; sent += int64(len(chunk)) {
		if err := to.Send(&bspb.ReadResponse{Data: chunk}); err != nil {
			return err
		}
	}
	return nil
}

// plainStream gives a function that receives size bytes over gRPC with mutual TLS, with windows of 8 MiB as the mesh has.
func plainStream(b *testing.B, size int64) func(to io.Writer) {
	b.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"plain"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		b.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	both := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, RootCAs: roots, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert, ServerName: "plain", MinVersion: tls.VersionTLS13}
	const window = 8 << 20
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(both)), grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window))
	bspb.RegisterByteStreamServer(server, &zeros{size: size})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	b.Cleanup(func() { server.Stop(); serving.Wait() })
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(both)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return func(to io.Writer) {
		stream, err := bspb.NewByteStreamClient(conn).Read(b.Context(), &bspb.ReadRequest{})
		for err == nil {
			var part *bspb.ReadResponse
			if part, err = stream.Recv(); err == nil {
				_, err = to.Write(part.Data)
			}
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
}
