package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/mesh/transport/transporttest"
)

// gigabit is what a cable in an office carries, in bytes a second.
const gigabit = 118 << 20

// source streams as many bytes as it is asked for, in Chunks, and answers health checks. An offset is taken for the
// bytes a second it may send; 0: as fast as it can.
type source struct {
	bspb.UnimplementedByteStreamServer
	healthpb.UnimplementedHealthServer
}

func (*source) Read(r *bspb.ReadRequest, s bspb.ByteStream_ReadServer) error {
	chunk := &bspb.ReadResponse{Data: make([]byte, transport.Chunk)}
	began := time.Now()
	for left := r.ReadLimit; left > 0; left -= transport.Chunk {
		if r.ReadOffset > 0 {
			time.Sleep(time.Duration(float64(r.ReadLimit-left)/float64(r.ReadOffset)*float64(time.Second)) - time.Since(began))
		}
		if err := s.Send(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (*source) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return &healthpb.HealthCheckResponse{}, nil
}

// drink reads n bytes from a source, at a pace, and counts them.
func drink(ctx context.Context, conn grpc.ClientConnInterface, n, pace int64, count *atomic.Int64) error {
	s, err := bspb.NewByteStreamClient(conn).Read(ctx, &bspb.ReadRequest{ReadLimit: n, ReadOffset: pace})
	if err != nil {
		return err
	}
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		count.Add(int64(len(chunk.Data)))
	}
}

// pair are two transports with a source behind both servers, connected.
func pair(b *testing.B) (control, bulk grpc.ClientConnInterface) {
	nodes := transporttest.Start(b, 2, func(_ int, control, bulk grpc.ServiceRegistrar) {
		for _, to := range []grpc.ServiceRegistrar{control, bulk} {
			bspb.RegisterByteStreamServer(to.(*grpc.Server), &source{}) // its generated code wants the type
			healthpb.RegisterHealthServer(to, &source{})
		}
	})
	control, err := nodes[0].Control(b.Context(), nodes[1].ID())
	if err != nil {
		b.Fatal(err)
	}
	bulk, err = nodes[0].Bulk(b.Context(), nodes[1].ID())
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []grpc.ClientConnInterface{control, bulk} {
		if _, err := healthpb.NewHealthClient(c).Check(b.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			b.Fatal(err)
		}
	}
	return control, bulk
}

// plain is gRPC with mutual TLS 1.3 and nothing of ours, with the same windows and buffers.
func plain(b *testing.B) grpc.ClientConnInterface {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"plain"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, RootCAs: pool, ServerName: "plain"}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.InitialWindowSize(8<<20), grpc.InitialConnWindowSize(16<<20),
		grpc.ReadBufferSize(transport.Chunk), grpc.WriteBufferSize(transport.Chunk))
	bspb.RegisterByteStreamServer(server, &source{})
	healthpb.RegisterHealthServer(server, &source{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	b.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithInitialWindowSize(8<<20), grpc.WithInitialConnWindowSize(16<<20),
		grpc.WithReadBufferSize(transport.Chunk), grpc.WithWriteBufferSize(transport.Chunk))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	if _, err := healthpb.NewHealthClient(conn).Check(b.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		b.Fatal(err)
	}
	return conn
}

// BenchmarkBulk streams 64 MiB at a time in turn over a bulk connection and over plain gRPC with mutual
// TLS. of-plain is the ratio of their medians: the mesh promises 0.8.
func BenchmarkBulk(b *testing.B) {
	_, bulk := pair(b)
	other := plain(b)
	const size = 64 << 20
	var ours, theirs []time.Duration
	timed := func(conn grpc.ClientConnInterface) time.Duration {
		began := time.Now()
		if err := drink(b.Context(), conn, size, 0, new(atomic.Int64)); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	for b.Loop() {
		ours, theirs = append(ours, timed(bulk)), append(theirs, timed(other))
	}
	mine, plain := median(ours), median(theirs)
	b.ReportMetric(size/mine.Seconds()/(1<<20), "MiB/s")
	b.ReportMetric(size/plain.Seconds()/(1<<20), "plain-MiB/s")
	b.ReportMetric(plain.Seconds()/mine.Seconds(), "of-plain")
}

// median is the middle one.
func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkCallDuringBulk makes small calls over a control connection, one every callEvery from one goroutine: alone,
// then while a bulk transfer to the same peer runs, then over the bulk connection itself while it runs. slower is the
// second to the first at the median, slower-p99 of their slowest hundredth: the mesh promises 2. It is measured at the
// pace of a gigabit cable, and with a transfer that takes all this machine's processors for both of its ends, where a
// call waits for a processor and not for the transfer. Run it with -benchtime 5x: five rounds, alternating.
func BenchmarkCallDuringBulk(b *testing.B) {
	b.Run("gigabit", func(b *testing.B) { duringBulk(b, gigabit) })
	b.Run("unbounded", func(b *testing.B) { duringBulk(b, 0) })
}

const (
	// callEvery is the pace of small calls, idle and during: a call has the same sleeping peers to wake.
	callEvery = 5 * time.Millisecond
	// callsARound are made in each state.
	callsARound = 200
)

// paced makes small calls at a steady pace and tells how long each took. One that comes late is not made up for.
func paced(b *testing.B, conn grpc.ClientConnInterface) []time.Duration {
	client := healthpb.NewHealthClient(conn)
	ticker := time.NewTicker(callEvery)
	defer ticker.Stop()
	took := make([]time.Duration, callsARound)
	for i := range took {
		<-ticker.C
		began := time.Now()
		if _, err := client.Check(b.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			b.Fatal(err)
		}
		took[i] = time.Since(began)
	}
	return took
}

func duringBulk(b *testing.B, pace int64) {
	control, bulk := pair(b)
	var idle, during, shared []time.Duration
	var poured atomic.Int64
	var moved int64 // while calls were made during the transfer
	var spent time.Duration
	for b.Loop() {
		idle = append(idle, paced(b, control)...)
		ctx, cancel := context.WithCancel(b.Context())
		var pouring sync.WaitGroup
		pouring.Go(func() {
			for ctx.Err() == nil {
				if err := drink(ctx, bulk, 1<<30, pace, &poured); err != nil && ctx.Err() == nil {
					b.Error(err)
				}
			}
		})
		for flowing := poured.Load() + 8<<20; poured.Load() < flowing && !b.Failed(); {
			time.Sleep(time.Millisecond)
		}
		before, began := poured.Load(), time.Now()
		during = append(during, paced(b, control)...)
		moved, spent = moved+poured.Load()-before, spent+time.Since(began)
		shared = append(shared, paced(b, bulk)...)
		cancel()
		pouring.Wait()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(moved)/spent.Seconds()/(1<<20), "transfer-MiB/s")
	for name, took := range map[string][]time.Duration{"idle": idle, "during": during, "shared": shared} {
		b.ReportMetric(float64(median(took).Microseconds()), name+"-us")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), name+"-p99-us") // median has sorted them
	}
	b.ReportMetric(median(during).Seconds()/median(idle).Seconds(), "slower")
	b.ReportMetric(during[len(during)*99/100].Seconds()/idle[len(idle)*99/100].Seconds(), "slower-p99")
}
