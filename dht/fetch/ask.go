package fetch

import (
	"context"
	"slices"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// maxFind is how many digests one FindMissing asks for.
const maxFind = 8192

// asked asks up to MaxAsked members which of the blobs they have, the longest alive first.
func (f *Fetcher) asked(ctx context.Context, ds []digest.Digest) [][]peer.ID {
	members := slices.Clone(f.options.Members.Members())
	slices.SortStableFunc(members, func(a, b locate.Member) int { return int(min(1, max(-1, b.Alive-a.Alive))) })
	ids := make([]peer.ID, 0, len(members))
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	ids = f.standing.order(ids)
	ids = ids[:min(len(ids), MaxAsked)]
	ctx, cancel := context.WithTimeout(ctx, askBudget)
	defer cancel()
	has := make([]map[digest.Digest]bool, len(ids))
	var asking sync.WaitGroup
	for i, id := range ids {
		asking.Go(func() { has[i] = f.has(ctx, id, ds) })
	}
	asking.Wait()
	found := make([][]peer.ID, len(ds))
	for i, d := range ds {
		for n, id := range ids {
			if has[n][d] {
				found[i] = append(found[i], id)
			}
		}
	}
	return found
}

// has asks one member; who does not answer in time has nothing.
func (f *Fetcher) has(ctx context.Context, id peer.ID, ds []digest.Digest) map[digest.Digest]bool {
	conn, err := f.options.Dialer.Control(ctx, id)
	if err != nil {
		return nil
	}
	client := repb.NewContentAddressableStorageClient(conn)
	has := make(map[digest.Digest]bool, len(ds))
	for _, fn := range digest.Functions() {
		of := slices.DeleteFunc(slices.Clone(ds), func(d digest.Digest) bool { return d.Function() != fn })
		for piece := range slices.Chunk(of, maxFind) {
			r, err := client.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{DigestFunction: fn.Proto(), BlobDigests: digest.Protos(piece)})
			if err != nil {
				return has
			}
			for _, d := range piece {
				has[d] = true
			}
			for _, p := range r.MissingBlobDigests {
				if d, err := digest.FromProto(fn, p); err == nil {
					delete(has, d)
				}
			}
		}
	}
	return has
}
