package fetch

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// maxSources is from how many providers one blob comes at once.
const maxSources = 4

// ranges gets a large blob from several providers at once: each brings one range after the other, the
// writer takes them in order. At most two ranges a provider wait in memory.
func (f *Fetcher) ranges(ctx context.Context, w io.Writer, d digest.Digest, providers []peer.ID) ([]peer.ID, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sources := min(len(providers), maxSources)
	slots := make(chan chan arrived, sources) // in order; each gets one range
	var getting sync.WaitGroup
	defer getting.Wait()
	defer cancel()
	getting.Go(func() {
		defer close(slots)
		for n, at := 0, int64(0); at < d.Size(); n, at = n+1, at+rangeSize {
			slot := make(chan arrived, 1)
			select {
			case slots <- slot:
			case <-ctx.Done():
				return
			}
			// Another provider begins each range; the others follow as they stand.
			order := append(slices.Clone(providers[n%sources:]), providers[:n%sources]...)
			part := section{d, at, min(at+rangeSize, d.Size())}
			getting.Go(func() { slot <- f.rangeOf(ctx, part, f.standing.order(order)) })
		}
	})
	var from []peer.ID
	for slot := range slots {
		a := <-slot
		for _, id := range a.from {
			if !slices.Contains(from, id) {
				from = append(from, id)
			}
		}
		if a.err != nil {
			return from, a.err
		}
		if _, err := w.Write(a.data); err != nil {
			return from, err
		}
	}
	return from, ctx.Err()
}

// arrived is a range that came, or did not.
type arrived struct {
	data []byte
	from []peer.ID
	err  error
}

// rangeOf gets one range into memory.
func (f *Fetcher) rangeOf(ctx context.Context, s section, providers []peer.ID) arrived {
	buffer := &collected{data: make([]byte, 0, s.end-s.at)}
	from, err := f.section(ctx, s, providers, buffer)
	return arrived{buffer.data, from, err}
}

// collected is a writer into memory whose size is known.
type collected struct{ data []byte }

func (c *collected) Write(p []byte) (int, error) {
	c.data = append(c.data, p...)
	return len(p), nil
}
