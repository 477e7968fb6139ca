package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/protobuf/proto"
)

// content makes bytes that no run before has stored, about half of which compress away.
type content struct {
	source *rand.ChaCha8
}

// newContent seeds the generator; the seed is printed so that a run can be told from another.
func newContent(seed uint64) *content {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return &content{source: rand.NewChaCha8(key)}
}

// blob makes size bytes, every second kilobyte of zeros.
func (c *content) blob(size int) []byte {
	data := make([]byte, size)
	for at := 0; at < size; at += 2048 {
		_, _ = c.source.Read(data[at:min(at+1024, size)]) // never fails
	}
	return data
}

func digestOf(data []byte) *repb.Digest {
	sum := sha256.Sum256(data)
	return &repb.Digest{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(data))}
}

// upload stores blobs in batches that keep under the common message limit.
func (s *Subject) upload(ctx context.Context, blobs ...[]byte) error {
	request := &repb.BatchUpdateBlobsRequest{}
	size := 0
	flush := func() error {
		if len(request.Requests) == 0 {
			return nil
		}
		reply, err := s.cas.BatchUpdateBlobs(ctx, request)
		if err != nil {
			return err
		}
		for _, item := range reply.Responses {
			if item.Status.GetCode() != 0 {
				return fmt.Errorf("store %s: %s", item.Digest.GetHash(), item.Status.GetMessage())
			}
		}
		request, size = &repb.BatchUpdateBlobsRequest{}, 0
		return nil
	}
	for _, data := range blobs {
		if size+len(data) > 3<<20 {
			if err := flush(); err != nil {
				return err
			}
		}
		request.Requests = append(request.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: digestOf(data), Data: data})
		size += len(data) + 100
	}
	return flush()
}

// message stores a protobuf message and returns its digest.
func (s *Subject) message(ctx context.Context, m proto.Message) (*repb.Digest, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	return digestOf(data), s.upload(ctx, data)
}

// write sends data under name in messages of 1 MiB.
func (s *Subject) write(ctx context.Context, name string, data []byte) error {
	stream, err := s.bytes.Write(ctx)
	if err != nil {
		return err
	}
	const piece = 1 << 20
	for at := 0; ; at += piece {
		end := min(at+piece, len(data))
		request := &bytestream.WriteRequest{WriteOffset: int64(at), Data: data[at:end], FinishWrite: end == len(data)}
		if at == 0 {
			request.ResourceName = name
		}
		if err := stream.Send(request); err != nil || end == len(data) {
			break // the answer says what went wrong
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// read receives the whole resource and returns its length.
func (s *Subject) read(ctx context.Context, name string) (int, error) {
	stream, err := s.bytes.Read(ctx, &bytestream.ReadRequest{ResourceName: name})
	if err != nil {
		return 0, err
	}
	total := 0
	for {
		reply, err := stream.Recv()
		if err != nil {
			if err.Error() == "EOF" {
				return total, nil
			}
			return total, err
		}
		total += len(reply.Data)
	}
}

// stamp makes data unlike any other by writing a number into its first bytes.
func stamp(data []byte, number uint64) []byte {
	stamped := bytes.Clone(data)
	binary.LittleEndian.PutUint64(stamped, number)
	return stamped
}
