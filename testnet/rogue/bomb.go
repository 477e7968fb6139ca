package main

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/klauspost/compress/zstd"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
)

const (
	// burst is what an explosive blob becomes when somebody decompresses it, in bytes.
	burst = 256 << 20
	// levels is how deep a thicket is: it has two to the power of levels directories, and a message for each level.
	levels = 40
)

// explosive makes every blob of a batch a compressed one of burst zeros.
func explosive(r *repb.BatchReadBlobsResponse) {
	coder, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err) // without options there is none
	}
	bomb := coder.EncodeAll(make([]byte, burst), nil)
	for _, item := range r.Responses {
		if len(item.Data) > 0 {
			item.Data, item.Compressor = bomb, repb.Compressor_ZSTD
		}
	}
}

// endless sends the same part again and again, for as long as somebody takes it.
func endless(to grpc.ServerStreamingServer[bspb.ReadResponse], data []byte) error {
	for {
		if err := send(to, data); err != nil {
			return err
		}
	}
}

// grow makes the output of a result a directory that has itself in it twice, and so on.
func grow(r *rogue, s *receipt.Statement) error {
	directory := &repb.Directory{}
	for range levels {
		data, err := proto.Marshal(directory)
		if err != nil {
			return err
		}
		d := digest.SHA256.Of(data)
		if err := r.store.Put(context.Background(), d, data); err != nil {
			return err
		}
		s.Result.OutputFiles = nil
		s.Result.OutputDirectories = []*repb.OutputDirectory{{Path: "out", RootDirectoryDigest: d.Proto()}}
		directory = &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "a", Digest: d.Proto()}, {Name: "b", Digest: d.Proto()}}}
	}
	return nil
}
