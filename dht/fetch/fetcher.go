package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// ErrNotFound means that no provider was found that gave a blob.
var ErrNotFound = errors.New("no peer has the blob")

// Bounds and times of one fetch.
const (
	// BatchBytes is the most content one batch asks for.
	BatchBytes = 4<<20 - 256<<10
	// MaxAsked is how many members are asked whether they have what nobody was named for.
	MaxAsked = 50
	// HedgeAfter is how long a batch may take before another provider is asked for it too.
	HedgeAfter = 200 * time.Millisecond
	// StallAfter is how long a stream may bring nothing before another provider takes over.
	StallAfter = 500 * time.Millisecond
	// GiveUp is how long the only provider left may bring nothing; half as long each time that it did.
	GiveUp = 10 * time.Second

	maxBatch  = 4096          // blobs in a batch
	maxSmall  = 1 << 20       // larger blobs are streams
	perPeer   = 3             // batches under way at one provider
	streams   = 3             // large blobs under way in one fetch
	rangeSize = 8 << 20       // of a large blob that comes from several providers
	minRanges = 4 * rangeSize // smaller blobs come from one
	askBudget = 150 * time.Millisecond
)

// Store is the local store.
type Store interface {
	// Missing gives those of ds that are absent and extends the lifetime of the others.
	Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error)
	// PutBatch verifies and stores blobs independently of each other; nil means all are stored.
	PutBatch(ctx context.Context, blobs []cas.Blob) []error
	// NewWriter takes one blob in order, verified as it comes.
	NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error)
}

// Options shape a Fetcher. All but Locator, Rate, Within and Brought must be set.
type Options struct {
	Store   Store
	Dialer  locate.Dialer
	Members locate.Members
	Keyer   *cid.Keyer
	Locator locate.Locator // of blobs; nil: none
	Rate    int64          // bytes a second received at most; 0: no bound
	Within  *Fetcher       // whose bound what this one receives counts for too; nil: none's
	// Brought is told what each call to a peer brought and how long it took. May be nil.
	Brought func(id peer.ID, bytes int64, took time.Duration)
}

// Fetcher brings blobs from peers. Make it with New.
type Fetcher struct {
	options  Options
	limiter  *rate.Limiter // nil: no bound
	standing *standings

	mu      sync.Mutex // guards flights
	flights map[digest.Digest]*flight
}

// flight is a blob on its way.
type flight struct{ done chan struct{} }

// New makes a Fetcher.
func New(o Options) *Fetcher {
	f := &Fetcher{options: o, standing: newStandings(), flights: map[digest.Digest]*flight{}}
	if o.Rate > 0 {
		f.limiter = rate.NewLimiter(rate.Limit(o.Rate), int(max(o.Rate, 8<<20)))
	}
	return f
}

// brought tells what a call brought.
func (f *Fetcher) brought(id peer.ID, bytes int64, began time.Time) {
	if f.options.Brought != nil {
		f.options.Brought(id, bytes, time.Since(began))
	}
}

// bounded reports whether receive may wait.
func (f *Fetcher) bounded() bool {
	return f.limiter != nil || f.options.Within != nil && f.options.Within.bounded()
}

// receive waits until n more bytes may be received.
func (f *Fetcher) receive(ctx context.Context, n int) error {
	if f.options.Within != nil {
		if err := f.options.Within.receive(ctx, n); err != nil {
			return err
		}
	}
	if f.limiter == nil || n == 0 {
		return nil
	}
	return f.limiter.WaitN(ctx, min(n, f.limiter.Burst()))
}

// Fetch brings blobs here and gives those that no peer has. hints are peers that are likely to have all of
// them, the best one first. Errors: what the store failed with, or the context's.
func (f *Fetcher) Fetch(ctx context.Context, ds []digest.Digest, hints []peer.ID) (missing []digest.Digest, err error) {
	for {
		ds, err = f.options.Store.Missing(ctx, unique(ds))
		if err != nil || len(ds) == 0 {
			return missing, err
		}
		own, others, flights := f.claim(ds)
		lost, err := f.fetch(ctx, own, hints)
		f.release(own)
		if err != nil {
			return nil, err
		}
		missing = append(missing, lost...)
		for _, other := range flights {
			select {
			case <-other.done:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		// What others fetched is here now, or they gave up, and it is tried once more.
		ds = others
	}
}

// unique gives distinct digests in order.
func unique(ds []digest.Digest) []digest.Digest {
	seen := make(map[digest.Digest]struct{}, len(ds))
	out := make([]digest.Digest, 0, len(ds))
	for _, d := range ds {
		if _, is := seen[d]; !is {
			seen[d] = struct{}{}
			out = append(out, d)
		}
	}
	return out
}

// claim divides blobs into those this call is to fetch, and others with the flights that fetch them.
func (f *Fetcher) claim(ds []digest.Digest) (own, others []digest.Digest, flights []*flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	mine := &flight{done: make(chan struct{})}
	for _, d := range ds {
		other := f.flights[d]
		if other == nil {
			f.flights[d] = mine
			own = append(own, d)
			continue
		}
		others = append(others, d)
		if !slices.Contains(flights, other) {
			flights = append(flights, other)
		}
	}
	return own, others, flights
}

// release ends the flight of blobs that were claimed together.
func (f *Fetcher) release(own []digest.Digest) {
	if len(own) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.flights[own[0]].done)
	for _, d := range own {
		delete(f.flights, d)
	}
}

// fetch asks the hints, then whom the locator names, then who says to have what is left.
func (f *Fetcher) fetch(ctx context.Context, ds []digest.Digest, hints []peer.ID) ([]digest.Digest, error) {
	tried := map[peer.ID]bool{}
	for _, find := range []func(context.Context, []digest.Digest) [][]peer.ID{
		func(_ context.Context, ds []digest.Digest) [][]peer.ID { return repeat(hints, len(ds)) },
		f.located, f.asked,
	} {
		if len(ds) == 0 {
			break
		}
		wants := make([]*want, 0, len(ds))
		var left []digest.Digest
		for i, providers := range find(ctx, ds) {
			providers = slices.DeleteFunc(slices.Clone(providers), func(id peer.ID) bool { return tried[id] })
			if providers = f.standing.order(providers); len(providers) == 0 {
				left = append(left, ds[i])
				continue
			}
			wants = append(wants, &want{digest: ds[i], providers: providers})
		}
		for _, id := range hints {
			tried[id] = true
		}
		failed, err := f.pull(ctx, wants)
		if err != nil {
			return nil, err
		}
		ds = append(left, failed...)
	}
	return ds, context.Cause(ctx)
}

// repeat gives the same providers n times.
func repeat(ids []peer.ID, n int) [][]peer.ID {
	all := make([][]peer.ID, n)
	for i := range all {
		all[i] = ids
	}
	return all
}

// located asks the locator.
func (f *Fetcher) located(ctx context.Context, ds []digest.Digest) [][]peer.ID {
	none := make([][]peer.ID, len(ds))
	if f.options.Locator == nil {
		return none
	}
	keys := make([]cid.Key, len(ds))
	for i, d := range ds {
		keys[i] = f.options.Keyer.Blob(d)
	}
	ctx, cancel := context.WithTimeout(ctx, askBudget)
	defer cancel()
	found, err := f.options.Locator.Find(ctx, keys)
	if err != nil {
		return none // members are asked themselves next
	}
	return found
}

// want is a blob with those who may have it.
type want struct {
	digest    digest.Digest
	providers []peer.ID // not asked yet, the best first
	flying    int       // pieces under way that have it
	done      bool      // here, or given up
	here      bool
}

// pull gets what it can from the providers of each blob and gives the blobs it could not.
func (f *Fetcher) pull(ctx context.Context, wants []*want) (failed []digest.Digest, err error) {
	var small, large []*want
	for _, w := range wants {
		if w.digest.Size() <= maxSmall {
			small = append(small, w)
		} else {
			large = append(large, w)
		}
	}
	var pulling sync.WaitGroup
	errs := make([]error, 2)
	pulling.Go(func() { errs[0] = f.pullSmall(ctx, small) })
	pulling.Go(func() { errs[1] = f.pullLarge(ctx, large) })
	pulling.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, w := range wants {
		if !w.here {
			failed = append(failed, w.digest)
		}
	}
	return failed, context.Cause(ctx)
}

// Standings tells what providers have shown themselves to be.
func (f *Fetcher) Standings() map[peer.ID]Standing { return f.standing.all() }

// FetchOne is Fetch for one blob. Errors: ErrNotFound.
func (f *Fetcher) FetchOne(ctx context.Context, d digest.Digest, hints []peer.ID) error {
	missing, err := f.Fetch(ctx, []digest.Digest{d}, hints)
	if err == nil && len(missing) > 0 {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("fetch blob %s: %w", d.Short(), err)
	}
	return nil
}
