package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// errLie is wrapped by the error of an answer that is not what was asked for.
var errLie = errors.New("the peer sent something else")

// pieces divides small blobs among their providers. All calls that get them share it.
//
//	worker of a              worker of b
//	take: blobs 1..900
//	                         take: blobs 901..1800
//	  ... nothing comes
//	                         settled; take after HedgeAfter: blobs 1..900 again
//	                         settled: all done; a's call is cancelled
type pieces struct {
	fetcher *Fetcher
	began   time.Time

	mu      sync.Mutex // guards everything below, and the wants
	wants   []*want    // in order; those done are removed from the front
	left    int        // wants not done
	bytes   int64      // of wants neither done nor under way
	flying  []*piece
	failed  bool // a call failed: nobody waits for a better provider any more
	changed chan struct{}
	fault   error // of the store: ends everything
}

// piece is small blobs that one call asks for.
type piece struct {
	wants  []*want
	id     peer.ID // whom it asks
	began  time.Time
	hedged bool
}

// pullSmall gets small blobs in batches.
func (f *Fetcher) pullSmall(ctx context.Context, wants []*want) error {
	if len(wants) == 0 {
		return nil
	}
	p := &pieces{fetcher: f, began: time.Now(), wants: wants, left: len(wants), changed: make(chan struct{})}
	ranks := map[peer.ID]int{} // the best place a provider has with any blob
	for _, w := range wants {
		p.bytes += w.digest.Size()
		for rank, id := range w.providers {
			if old, known := ranks[id]; !known || rank < old {
				ranks[id] = rank
			}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var working sync.WaitGroup
	for id, rank := range ranks {
		for range perPeer {
			working.Go(func() { p.work(ctx, id, rank) })
		}
	}
	stop := context.AfterFunc(ctx, func() { p.change(func() {}) })
	defer stop()
	p.wait(ctx)
	cancel() // calls that lost a race
	working.Wait()
	return p.fault
}

// change lets f change the state and wakes everybody who waits for that.
func (p *pieces) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait returns when nothing is left to do.
func (p *pieces) wait(ctx context.Context) {
	for ctx.Err() == nil {
		p.mu.Lock()
		over, changed := p.left == 0 || p.fault != nil, p.changed
		p.mu.Unlock()
		if over {
			return
		}
		<-changed
	}
}

// work asks one provider for one piece after the other until nothing is left.
func (p *pieces) work(ctx context.Context, id peer.ID, rank int) {
	for ctx.Err() == nil {
		p.mu.Lock()
		piece, wait := p.take(id, rank)
		changed, over := p.changed, p.left == 0 || p.fault != nil
		p.mu.Unlock()
		switch {
		case over:
			return
		case piece != nil:
			p.get(ctx, piece)
		default:
			timer := time.NewTimer(wait)
			select {
			case <-changed:
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		}
	}
}

// take gives the next piece for a provider, or how long to wait for one. Those who are not the best
// provider of anything wait while one batch would do, unless it is slow. mu is held.
func (p *pieces) take(id peer.ID, rank int) (*piece, time.Duration) {
	delay := time.Duration(rank)*HedgeAfter - time.Since(p.began)
	if rank > 0 && p.bytes <= BatchBytes && !p.failed && delay > 0 {
		return nil, delay
	}
	next := &piece{id: id, began: time.Now()}
	var bytes int64
	for _, w := range p.wants {
		if w.done || w.flying > 0 || !slices.Contains(w.providers, id) {
			continue
		}
		if len(next.wants) == maxBatch || bytes+w.digest.Size() > BatchBytes && len(next.wants) > 0 {
			break
		}
		next.wants = append(next.wants, w)
		bytes += w.digest.Size()
	}
	if len(next.wants) == 0 {
		return p.hedge(id)
	}
	p.bytes -= bytes
	p.fly(next)
	return next, 0
}

// fly notes a piece that is under way, and drops wants that are done from the front. mu is held.
func (p *pieces) fly(next *piece) {
	for _, w := range next.wants {
		w.flying++
	}
	p.flying = append(p.flying, next)
	for len(p.wants) > 0 && p.wants[0].done {
		p.wants = p.wants[1:]
	}
}

// hedge gives what another provider is slow to bring, or how long until it is slow. mu is held.
func (p *pieces) hedge(id peer.ID) (*piece, time.Duration) {
	wait := GiveUp
	for _, slow := range p.flying {
		if slow.hedged || slow.id == id {
			continue
		}
		again := &piece{id: id, began: time.Now(), hedged: true}
		for _, w := range slow.wants {
			if !w.done && slices.Contains(w.providers, id) {
				again.wants = append(again.wants, w)
			}
		}
		left := HedgeAfter - time.Since(slow.began)
		if len(again.wants) > 0 && left <= 0 {
			slow.hedged = true
			p.fly(again)
			return again, 0
		} else if len(again.wants) > 0 {
			wait = min(wait, left)
		}
	}
	return nil, wait
}

// get makes one call and settles its piece.
func (p *pieces) get(ctx context.Context, piece *piece) {
	id := piece.id
	call, cancel := context.WithTimeout(ctx, p.fetcher.standing.patience(id))
	defer cancel()
	got, err := p.fetcher.batch(call, id, piece.wants)
	if err != nil && ctx.Err() == nil && call.Err() != nil {
		p.fetcher.standing.hung(id)
	}
	bytes := sizeOf(got)
	if err == nil {
		p.fetcher.brought(id, bytes, piece.began)
	}
	var fault error
	for i, storing := range p.fetcher.options.Store.PutBatch(ctx, got) {
		if storing == nil {
			continue
		}
		bytes -= got[i].Digest.Size()
		got[i].Data = nil
		if errors.Is(storing, cas.ErrCorrupt) {
			err = errLie
		} else {
			fault = storing
		}
	}
	if ctx.Err() != nil { // a call that lost the race says nothing about store or provider
		p.change(func() { p.settle(piece, nil, nil, nil) })
		return
	}
	here := map[digest.Digest]bool{}
	for _, b := range got {
		if b.Data != nil {
			here[b.Digest] = true
		}
	}
	p.judge(id, len(here), bytes, len(piece.wants), err)
	p.change(func() { p.settle(piece, here, err, fault) })
}

// sizeOf is how many bytes blobs have together.
func sizeOf(blobs []cas.Blob) (bytes int64) {
	for _, b := range blobs {
		bytes += b.Digest.Size()
	}
	return bytes
}

// judge notes how a provider did.
func (p *pieces) judge(id peer.ID, blobs int, bytes int64, asked int, err error) {
	empty := 0
	switch {
	case errors.Is(err, errLie):
		p.fetcher.standing.lied(id)
	case err != nil:
		p.fetcher.standing.failed(id)
	default:
		empty = asked - blobs
	}
	p.fetcher.standing.gave(id, blobs, bytes, empty)
}

// settle notes what came of a piece: what did not come is not asked of this provider again. mu is held.
func (p *pieces) settle(piece *piece, here map[digest.Digest]bool, err, fault error) {
	id := piece.id
	p.flying = slices.DeleteFunc(p.flying, same(piece))
	p.failed = p.failed || err != nil || len(here) < len(piece.wants)
	if p.fault == nil {
		p.fault = fault
	}
	for _, w := range piece.wants {
		w.flying--
		if w.done {
			continue
		}
		if here[w.digest] {
			w.done, w.here = true, true
			p.left--
			continue
		}
		w.providers = slices.DeleteFunc(w.providers, func(other peer.ID) bool { return other == id })
		if w.flying > 0 {
			continue
		}
		if len(w.providers) == 0 {
			w.done = true
			p.left--
			continue
		}
		p.bytes += w.digest.Size()
	}
	if errors.Is(err, errLie) { // everything else is left to others too
		for _, w := range p.wants {
			if w.done || w.flying > 0 {
				continue
			}
			w.providers = slices.DeleteFunc(w.providers, func(other peer.ID) bool { return other == id })
			if len(w.providers) == 0 {
				w.done = true
				p.left--
			}
		}
	}
}

// batch asks a provider for small blobs and gives those it has, checked for nothing but that they were
// asked for. Errors: errLie.
func (f *Fetcher) batch(ctx context.Context, id peer.ID, wants []*want) ([]cas.Blob, error) {
	conn, err := f.options.Dialer.Bulk(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("fetch from %s: %w", id.Short(), err)
	}
	client := repb.NewContentAddressableStorageClient(conn)
	var got []cas.Blob
	for _, fn := range digest.Functions() {
		asked := map[string]digest.Digest{}
		q := &repb.BatchReadBlobsRequest{DigestFunction: fn.Proto()}
		var bytes int64
		for _, w := range wants {
			if w.digest.Function() == fn {
				p := w.digest.Proto()
				asked[p.Hash] = w.digest
				q.Digests = append(q.Digests, p)
				bytes += w.digest.Size()
			}
		}
		if len(q.Digests) == 0 {
			continue
		}
		if err := f.receive(ctx, int(bytes)); err != nil {
			return got, err
		}
		r, err := client.BatchReadBlobs(ctx, q)
		if err != nil {
			return got, fmt.Errorf("fetch from %s: %w", id.Short(), err)
		}
		for _, item := range r.Responses {
			if code := codes.Code(item.Status.GetCode()); code != codes.OK {
				continue
			}
			d, is := asked[item.Digest.GetHash()]
			if !is || int64(len(item.Data)) != d.Size() || item.Compressor != repb.Compressor_IDENTITY {
				return got, fmt.Errorf("fetch from %s: %w", id.Short(), errLie)
			}
			delete(asked, item.Digest.Hash)
			got = append(got, cas.Blob{Digest: d, Data: item.Data})
		}
	}
	return got, nil
}

// same tells one piece from all others.
func same(one *piece) func(*piece) bool {
	return func(other *piece) bool { return other == one }
}
