package reapi

import (
	"context"
	"io"
	"strings"
	"testing"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/node/logstream"
)

// logging is an endpoint with log streams, and a stream's public and write names.
func logging(t *testing.T) (e *endpoint, public, secret string) {
	t.Helper()
	logs, err := logstream.Open(logstream.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { logs.Close() })
	e = start(t, func(c *Config) { c.Logs = logs })
	public, secret, err = logs.Create("builds/7")
	if err != nil {
		t.Fatal(err)
	}
	return e, public, secret
}

// sendLog sends messages to a name and gives the answer.
func (e *endpoint) sendLog(t *testing.T, messages ...*bspb.WriteRequest) (*bspb.WriteResponse, error) {
	t.Helper()
	stream, err := e.streams.Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			break // the answer tells why
		}
	}
	return stream.CloseAndRecv()
}

// tail reads a log to its end.
func (e *endpoint) tail(ctx context.Context, name string, offset int64) (string, error) {
	stream, err := e.streams.Read(ctx, &bspb.ReadRequest{ResourceName: name, ReadOffset: offset})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return out.String(), nil
		}
		if err != nil {
			return out.String(), err
		}
		out.Write(m.Data)
	}
}

func TestLogIsReadWhileItIsWritten(t *testing.T) {
	e, public, secret := logging(t)
	reader, err := e.streams.Read(t.Context(), &bspb.ReadRequest{ResourceName: public})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := e.sendLog(t, &bspb.WriteRequest{ResourceName: secret, Data: []byte("one ")}); err != nil || r.CommittedSize != 4 {
		t.Fatalf("first part: %v, %v", r, err)
	}
	if m, err := reader.Recv(); err != nil || string(m.Data) != "one " {
		t.Fatalf("while it is written: %v, %v", m, err)
	}
	if q, err := e.streams.QueryWriteStatus(t.Context(), &bspb.QueryWriteStatusRequest{ResourceName: secret}); err != nil || q.CommittedSize != 4 || q.Complete {
		t.Errorf("status: %v, %v", q, err)
	}
	r, err := e.sendLog(t, &bspb.WriteRequest{ResourceName: secret, WriteOffset: 4, Data: []byte("two ")},
		&bspb.WriteRequest{WriteOffset: 8, Data: []byte("three"), FinishWrite: true})
	if err != nil || r.CommittedSize != 13 {
		t.Fatalf("the rest: %v, %v", r, err)
	}
	if all, err := e.tail(t.Context(), public, 4); err != nil || all != "two three" {
		t.Errorf("from the middle to the end: %q, %v", all, err)
	}
	if q, err := e.streams.QueryWriteStatus(t.Context(), &bspb.QueryWriteStatusRequest{ResourceName: secret}); err != nil || !q.Complete {
		t.Errorf("final status: %v, %v", q, err)
	}
}

func TestLogNames(t *testing.T) {
	e, public, secret := logging(t)
	if _, err := e.tail(t.Context(), secret, 0); status.Code(err) != codes.InvalidArgument {
		t.Errorf("read by the write name: %v", err)
	}
	if _, err := e.sendLog(t, &bspb.WriteRequest{ResourceName: public, Data: []byte("x")}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("write by the public name: %v", err)
	}
	if _, err := e.sendLog(t, &bspb.WriteRequest{ResourceName: secret, WriteOffset: 5, Data: []byte("x")}); status.Code(err) != codes.OutOfRange {
		t.Errorf("write with a gap: %v", err)
	}
	unknown := "builds/7/logstreams/" + strings.Repeat("0", 32)
	if _, err := e.tail(t.Context(), unknown, 0); status.Code(err) != codes.NotFound {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := e.sendLog(t, &bspb.WriteRequest{ResourceName: secret, FinishWrite: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.sendLog(t, &bspb.WriteRequest{ResourceName: secret, Data: []byte("x")}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("write to a final log: %v", err)
	}
}

func TestEndpointWithoutLogs(t *testing.T) {
	e := start(t)
	if _, err := e.tail(t.Context(), "a/logstreams/"+strings.Repeat("0", 32), 0); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}
