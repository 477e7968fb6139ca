package main

import (
	"bytes"
	"context"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// role is in what a rogue is no honest member. What is nil it does as they do.
type role struct {
	hoards bool                                                                      // it says that it has every blob
	batch  func(context.Context, *repb.BatchReadBlobsResponse)                       // spoils small blobs
	stream func(to grpc.ServerStreamingServer[bspb.ReadResponse], data []byte) error // sends instead of the bytes of a large one
	answer func(*rogue, cid.Key, *contentv1.Answer) error                            // spoils what it tells of a result that it has
	claims func(*rogue) ([]cid.Key, error)                                           // the results its summary is of, instead of those that it has
	deed   func(context.Context, *rogue) (said []string, err error)                  // does by itself
	stays  bool                                                                      // when its deed is done
	lends  *lending                                                                  // how it runs what others give it; nil: it lends nothing
}

// roles are the roles by name.
var roles = map[string]role{
	"swapper": {
		batch:  func(_ context.Context, r *repb.BatchReadBlobsResponse) { each(r, flip) },
		stream: func(to grpc.ServerStreamingServer[bspb.ReadResponse], data []byte) error { return send(to, flip(data)) },
	},
	"truncator": {
		batch: func(_ context.Context, r *repb.BatchReadBlobsResponse) {
			each(r, func(b []byte) []byte { return b[:len(b)/2] })
		},
		stream: func(to grpc.ServerStreamingServer[bspb.ReadResponse], data []byte) error {
			return send(to, data[:len(data)/2])
		},
	},
	"hoarder": {
		hoards: true,
		batch:  func(_ context.Context, r *repb.BatchReadBlobsResponse) { absent(r) },
		stream: func(grpc.ServerStreamingServer[bspb.ReadResponse], []byte) error { return errAbsent },
	},
	"slowpoke": {
		batch:  func(ctx context.Context, _ *repb.BatchReadBlobsResponse) { <-ctx.Done() },
		stream: drip,
	},
	"liar": {answer: signs(func(r *rogue, s *receipt.Statement) error {
		for _, file := range s.Result.OutputFiles {
			content := bytes.Repeat([]byte("lie\n"), int(file.Digest.SizeBytes))[:file.Digest.SizeBytes]
			file.Digest = digest.SHA256.Of(content).Proto()
			if err := r.store.Put(context.Background(), digest.SHA256.Of(content), content); err != nil {
				return err
			}
		}
		return nil
	})},
	"replayer": {answer: replay},
	"bomber": {
		batch:  func(_ context.Context, r *repb.BatchReadBlobsResponse) { explosive(r) },
		stream: endless,
	},
	"thicket":   {answer: signs(grow)},
	"boaster":   {claims: boasts},
	"miser":     {claims: func(*rogue) ([]cid.Key, error) { return nil, nil }},
	"snoop":     {deed: snoop},
	"poacher":   {deed: poach, stays: true},
	"idler":     {lends: &lending{cores: 4, silent: true}},
	"beater":    {lends: &lending{cores: 4, makes: forEver}},
	"evictor":   {lends: &lending{cores: 4, makes: evict}},
	"latecomer": {lends: &lending{cores: 4, makes: outdated, signs: signedLongAgo}},
	"braggart":  {lends: &lending{cores: absurdCores, memory: absurdMemory, makes: inNoTime, signs: signed}},
	"foreigner": {answer: signs(func(r *rogue, s *receipt.Statement) error {
		s.Mesh = r.identity.ID().String()
		return nil
	})},
}

// each changes the content of every blob of a batch.
func each(r *repb.BatchReadBlobsResponse, change func([]byte) []byte) {
	for _, item := range r.Responses {
		if len(item.Data) > 0 {
			item.Data = change(item.Data)
		}
	}
}

// absent makes a batch one of blobs that are not here.
func absent(r *repb.BatchReadBlobsResponse) {
	for _, item := range r.Responses {
		item.Status.Code, item.Data = int32(codes.NotFound), nil
	}
}

// flip is other bytes of the same length.
func flip(b []byte) []byte {
	b = append([]byte(nil), b...)
	b[len(b)/2] ^= 1
	return b
}

// send sends a part of a stream.
func send(to grpc.ServerStreamingServer[bspb.ReadResponse], data []byte) error {
	return to.Send(&bspb.ReadResponse{Data: data})
}

// drip sends a byte every now and then.
func drip(to grpc.ServerStreamingServer[bspb.ReadResponse], data []byte) error {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for i := range data {
		if err := send(to, data[i:i+1]); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-to.Context().Done():
			return to.Context().Err()
		}
	}
	return nil
}

// errAbsent is what an honest member says of a blob that it does not have.
var errAbsent = status.Error(codes.NotFound, "not here")
