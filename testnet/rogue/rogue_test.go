package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/klauspost/compress/zstd"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// sent keeps what a role sends as a stream, until its context ends.
type sent struct {
	grpc.ServerStreamingServer[bspb.ReadResponse]
	ctx  context.Context
	most int // that it takes; 0: any number
	data []byte
}

func (s *sent) Context() context.Context { return s.ctx }

func (s *sent) Send(r *bspb.ReadResponse) error {
	if s.most > 0 && len(s.data) >= s.most {
		return io.EOF
	}
	s.data = append(s.data, r.Data...)
	return nil
}

// batch is an answer with a blob and one that is not there.
func batch() *repb.BatchReadBlobsResponse {
	return &repb.BatchReadBlobsResponse{Responses: []*repb.BatchReadBlobsResponse_Response{
		{Data: []byte("content"), Status: &spb.Status{}}, {Status: &spb.Status{Code: int32(codes.NotFound)}},
	}}
}

// What each role makes of "content", in a batch and in a stream.
func TestRoles(t *testing.T) {
	for name, want := range map[string]struct {
		batch, stream string
		ends          codes.Code // of the stream
	}{
		"swapper":   {"conuent", "conuent", codes.OK},
		"truncator": {"con", "con", codes.OK},
		"hoarder":   {"", "", codes.NotFound},
	} {
		small := batch()
		roles[name].batch(t.Context(), small)
		if got := small.Responses[0]; string(got.Data) != want.batch || (len(got.Data) == 0) != (got.Status.Code == int32(codes.NotFound)) {
			t.Errorf("%s: a batch with %v", name, got)
		}
		if got := small.Responses[1]; len(got.Data) > 0 || got.Status.Code != int32(codes.NotFound) {
			t.Errorf("%s: of what is not there it makes %v", name, got)
		}
		large := &sent{ctx: t.Context()}
		if err := roles[name].stream(large, []byte("content")); status.Code(err) != want.ends || string(large.data) != want.stream {
			t.Errorf("%s: a stream of %q, %v", name, large.data, err)
		}
	}
}

// A bomber sends small blobs that become large ones, and does not end a stream while somebody takes it.
func TestBomber(t *testing.T) {
	small := batch()
	roles["bomber"].batch(t.Context(), small)
	decoder, err := zstd.NewReader(bytes.NewReader(small.Responses[0].Data))
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	if n, err := io.Copy(io.Discard, decoder); err != nil || n != burst || len(small.Responses[0].Data) > 1<<20 {
		t.Errorf("%d bytes become %d, %v", len(small.Responses[0].Data), n, err)
	}
	large := &sent{ctx: t.Context(), most: 1 << 20}
	if err := roles["bomber"].stream(large, []byte("content")); !errors.Is(err, io.EOF) || len(large.data) < 1<<20 {
		t.Errorf("a stream ended after %d bytes: %v", len(large.data), err)
	}
}

// A slowpoke sends nothing in a batch and little in a stream, for as long as it is let.
func TestSlowpoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = time.Minute - time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		began, large := time.Now(), &sent{ctx: ctx}
		if err := roles["slowpoke"].stream(large, bytes.Repeat([]byte("x"), 1<<20)); err == nil || time.Since(began) != patience || len(large.data) != 300 {
			t.Errorf("a stream of %d bytes in %v, %v", len(large.data), time.Since(began), err)
		}
		if roles["slowpoke"].batch(ctx, batch()); ctx.Err() == nil {
			t.Error("a batch is answered")
		}
	})
}

func TestUsage(t *testing.T) {
	for line, want := range map[string]string{
		"":                 "want ROLE DIR",
		"swapper":          "want ROLE DIR",
		"saint /nowhere":   "there is no role",
		"swapper /nowhere": "/nowhere",
	} {
		if err := run(t.Context(), strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}
