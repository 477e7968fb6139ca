package main

import (
	"context"
	"crypto/rand"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/share"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// guesses is how many digests a snoop guesses at once.
const guesses = 10_000

// haul is what a snoop got from one member.
type haul struct {
	blobs, results int // of those it knew the digests of
	lucky          int // blobs that it guessed
	refused        bool
}

// snoop asks every other member for what it has itself, for which it need not guess, and then for digests by chance, twice
// as many as a member may ask for in vain. It tells what each gave.
func snoop(ctx context.Context, r *rogue) (said []string, err error) {
	blobs, err := r.certain()
	if err != nil {
		return nil, err
	}
	for _, m := range r.others() {
		control, err := r.links.Control(ctx, m.ID)
		if err != nil {
			return nil, err
		}
		bulk, err := r.links.Bulk(ctx, m.ID)
		if err != nil {
			return nil, err
		}
		h, err := snoopAt(ctx, control, bulk, blobs, r.keys)
		if err != nil {
			return nil, fmt.Errorf("snoop at %s: %w", m.Name, err)
		}
		line := fmt.Sprintf("%s gives %d of %d blobs and %d of %d results that are known, and %d that are guessed",
			m.Name, h.blobs, len(blobs), h.results, len(r.keys), h.lucky)
		if h.refused {
			line += ", then nothing any more"
		}
		said = append(said, line)
	}
	return said, nil
}

// certain are the digests of the actions and outputs that this member knows of.
func (r *rogue) certain() (all []*repb.Digest, err error) {
	receipts, err := r.receipts.Raw(r.keys)
	if err != nil {
		return nil, err
	}
	for _, of := range receipts {
		s, err := receipt.Peek(of[0])
		if err != nil {
			return nil, err
		}
		all = append(all, s.Action.Proto())
		for _, file := range s.Result.OutputFiles {
			all = append(all, file.Digest)
		}
	}
	return all, nil
}

// snoopAt asks one member.
func snoopAt(ctx context.Context, control, bulk grpc.ClientConnInterface, blobs []*repb.Digest, keys []cid.Key) (h haul, err error) {
	client := repb.NewContentAddressableStorageClient(bulk)
	read := func() (*repb.BatchReadBlobsResponse, error) {
		return client.BatchReadBlobs(ctx, &repb.BatchReadBlobsRequest{Digests: blobs})
	}
	got, err := read()
	if err != nil {
		return h, err
	}
	for _, item := range got.Responses {
		if len(item.Data) > 0 {
			h.blobs++
		}
	}
	told, err := contentv1.NewContentClient(control).Results(ctx, &contentv1.ResultsRequest{Keys: rawKeys(keys)})
	if err != nil {
		return h, err
	}
	for _, a := range told.Answers {
		if len(a.Receipts) > 0 {
			h.results++
		}
	}
	// Time makes up for guesses. What is known is asked for after each, or it could be asked for when the refusal is over.
	for range 2 * share.MissBurst / guesses {
		missing, err := client.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{BlobDigests: chance()})
		if err == nil {
			h.lucky += guesses - len(missing.MissingBlobDigests)
		} else if status.Code(err) != codes.ResourceExhausted {
			return h, err
		}
		if _, err = read(); status.Code(err) == codes.ResourceExhausted {
			h.refused = true
			break
		}
	}
	return h, nil
}

// chance are digests of nothing.
func chance() []*repb.Digest {
	all := make([]*repb.Digest, guesses)
	for i := range all {
		hash := [digest.HashSize]byte{}
		_, _ = rand.Read(hash[:])
		all[i] = digest.New(digest.SHA256, hash, int64(i)).Proto()
	}
	return all
}
