package main

import (
	"context"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
)

// plan holds what the rows share: fresh content, and how much of everything.
type plan struct {
	content *content
	quick   bool // a smoke run: every count a hundredth
}

// count scales a number of operations down in a smoke run.
func (p plan) count(n int) int {
	if p.quick {
		return max(n/100, 4)
	}
	return n
}

// bigBlob is the size of the streamed blob in bytes.
func (p plan) bigBlob() int {
	if p.quick {
		return 4 << 20
	}
	return 256 << 20
}

func (p plan) cacheRows() []Row {
	return []Row{
		p.findMissing(1000), p.findMissing(10000),
		p.batchUpdate(1 << 10), p.batchUpdate(16 << 10), p.batchRead(1 << 10), p.batchRead(16 << 10),
		p.streamWrite(false), p.streamRead(false), p.streamWrite(true), p.streamRead(true),
		p.actionResult(true, 1), p.actionResult(true, 32), p.actionResult(false, 1), p.actionResult(false, 32),
	}
}

// findMissing asks for n digests of which half are stored.
func (p plan) findMissing(n int) Row {
	return Row{Name: fmt.Sprintf("FindMissingBlobs of %d", n), Unit: "calls/s", Higher: true,
		Prepare: func(ctx context.Context, s *Subject) (Round, error) {
			request := &repb.FindMissingBlobsRequest{}
			var stored [][]byte
			for i := range n {
				data := p.content.blob(64)
				request.BlobDigests = append(request.BlobDigests, digestOf(data))
				if i%2 == 0 {
					stored = append(stored, data)
				}
			}
			if err := s.upload(ctx, stored...); err != nil {
				return nil, err
			}
			return func(ctx context.Context) (float64, error) {
				return rate(ctx, 1, p.count(500_000/n), func(ctx context.Context, _ int) error {
					reply, err := s.cas.FindMissingBlobs(ctx, request)
					if err == nil && len(reply.MissingBlobDigests) != n/2 {
						err = fmt.Errorf("%d missing, want %d", len(reply.MissingBlobDigests), n/2)
					}
					return err
				})
			}, nil
		}}
}

const batch = 100 // blobs in one batch call

func (p plan) batchUpdate(size int) Row {
	return Row{Name: fmt.Sprintf("BatchUpdateBlobs, %d of %d KiB", batch, size>>10), Unit: "blobs/s", Higher: true,
		Prepare: func(_ context.Context, s *Subject) (Round, error) {
			return func(ctx context.Context) (float64, error) {
				requests := make([]*repb.BatchUpdateBlobsRequest, p.count(4<<20/batch/size*8))
				for i := range requests {
					requests[i] = &repb.BatchUpdateBlobsRequest{}
					for range batch {
						data := p.content.blob(size)
						requests[i].Requests = append(requests[i].Requests,
							&repb.BatchUpdateBlobsRequest_Request{Digest: digestOf(data), Data: data})
					}
				}
				calls, err := rate(ctx, 1, len(requests), func(ctx context.Context, i int) error {
					_, err := s.cas.BatchUpdateBlobs(ctx, requests[i])
					return err
				})
				return calls * batch, err
			}, nil
		}}
}

func (p plan) batchRead(size int) Row {
	return Row{Name: fmt.Sprintf("BatchReadBlobs, %d of %d KiB", batch, size>>10), Unit: "blobs/s", Higher: true,
		Prepare: func(ctx context.Context, s *Subject) (Round, error) {
			requests := make([]*repb.BatchReadBlobsRequest, 20)
			for i := range requests {
				requests[i] = &repb.BatchReadBlobsRequest{}
				var blobs [][]byte
				for range batch {
					data := p.content.blob(size)
					blobs = append(blobs, data)
					requests[i].Digests = append(requests[i].Digests, digestOf(data))
				}
				if err := s.upload(ctx, blobs...); err != nil {
					return nil, err
				}
			}
			return func(ctx context.Context) (float64, error) {
				calls, err := rate(ctx, 1, p.count(400), func(ctx context.Context, i int) error {
					reply, err := s.cas.BatchReadBlobs(ctx, requests[i%len(requests)])
					if err == nil && (len(reply.Responses) != batch || len(reply.Responses[0].Data) != size) {
						err = fmt.Errorf("%d answers", len(reply.Responses))
					}
					return err
				})
				return calls * batch, err
			}, nil
		}}
}

func streamName(compressed bool) (label, segment string) {
	if compressed {
		return "zstd", "compressed-blobs/zstd"
	}
	return "plain", "blobs"
}

// streamWrite uploads a large blob that is new each time; hashing and compressing on the client's side is not timed.
func (p plan) streamWrite(compressed bool) Row {
	label, segment := streamName(compressed)
	return Row{Name: fmt.Sprintf("ByteStream write of 256 MiB, %s", label), Unit: "MiB/s", Higher: true,
		Prepare: func(_ context.Context, s *Subject) (Round, error) {
			base, number := p.content.blob(p.bigBlob()), uint64(0)
			return func(ctx context.Context) (float64, error) {
				number++
				data := stamp(base, number)
				digest := digestOf(data)
				sent := data
				if compressed {
					encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
					if err != nil {
						return 0, err
					}
					sent = encoder.EncodeAll(data, nil)
				}
				name := fmt.Sprintf("uploads/%s/%s/%s/%d", uuid.NewString(), segment, digest.Hash, digest.SizeBytes)
				settle()
				calls, err := rate(ctx, 1, 1, func(ctx context.Context, _ int) error { return s.write(ctx, name, sent) })
				return calls * float64(len(data)) / (1 << 20), err
			}, nil
		}}
}

// streamRead downloads a large blob; what comes compressed is not decompressed by the client.
func (p plan) streamRead(compressed bool) Row {
	label, segment := streamName(compressed)
	return Row{Name: fmt.Sprintf("ByteStream read of 256 MiB, %s", label), Unit: "MiB/s", Higher: true,
		Prepare: func(ctx context.Context, s *Subject) (Round, error) {
			data := p.content.blob(p.bigBlob())
			digest := digestOf(data)
			name := fmt.Sprintf("uploads/%s/blobs/%s/%d", uuid.NewString(), digest.Hash, digest.SizeBytes)
			if err := s.write(ctx, name, data); err != nil {
				return nil, err
			}
			name = fmt.Sprintf("%s/%s/%d", segment, digest.Hash, digest.SizeBytes)
			return func(ctx context.Context) (float64, error) {
				calls, err := rate(ctx, 1, 1, func(ctx context.Context, _ int) error {
					n, err := s.read(ctx, name)
					if err == nil && !compressed && n != len(data) {
						err = fmt.Errorf("%d bytes came, want %d", n, len(data))
					}
					return err
				})
				return calls * float64(len(data)) / (1 << 20), err
			}, nil
		}}
}

// actionResult asks for results of one output file each, all stored or none.
func (p plan) actionResult(hit bool, callers int) Row {
	kind := "miss"
	if hit {
		kind = "hit"
	}
	return Row{Name: fmt.Sprintf("GetActionResult %s, %d callers", kind, callers), Unit: "calls/s", Higher: true,
		Prepare: func(ctx context.Context, s *Subject) (Round, error) {
			requests := make([]*repb.GetActionResultRequest, 200)
			for i := range requests {
				requests[i] = &repb.GetActionResultRequest{ActionDigest: digestOf(p.content.blob(64))}
				if !hit {
					continue
				}
				output := p.content.blob(256)
				if err := s.upload(ctx, output); err != nil {
					return nil, err
				}
				_, err := s.ac.UpdateActionResult(ctx, &repb.UpdateActionResultRequest{
					ActionDigest: requests[i].ActionDigest,
					ActionResult: &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out.o", Digest: digestOf(output)}}},
				})
				if err != nil {
					return nil, err
				}
			}
			return func(ctx context.Context) (float64, error) {
				return rate(ctx, callers, p.count(8000), func(ctx context.Context, i int) error {
					_, err := s.ac.GetActionResult(ctx, requests[i%len(requests)])
					if hit == (err != nil) {
						return fmt.Errorf("a %s ends with %v", kind, err)
					}
					return nil
				})
			}, nil
		}}
}
