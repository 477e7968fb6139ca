package lookup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/distance"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Times and bounds of one lookup.
const (
	// Budget is how long asking for a receipt may take.
	Budget = 40 * time.Millisecond
	// FarBudget is how long it may take when another site is asked: two calls over a slow link.
	FarBudget = 500 * time.Millisecond
	// HedgeAfter is how long one candidate may take before the next is asked too.
	HedgeAfter = 12 * time.Millisecond
	// FarHedgeAfter is the same for one at another site.
	FarHedgeAfter = 150 * time.Millisecond
	// NegativeFor is how long a miss is remembered that all who were asked confirmed.
	NegativeFor = 5 * time.Second
	// SlowFor is how long a peer is left out that did not answer, or answered late twice running.
	SlowFor = 5 * time.Second
	// MaxTogether is how many questions to one peer travel together.
	MaxTogether = 256

	maxCandidates = 8
	maxNegative   = 1 << 17
	maxForgers    = 4096
)

// Results is the local cache of action results.
type Results interface {
	// Get gives a complete result and extends the lifetimes of its blobs; else actioncache.ErrNotFound.
	Get(ctx context.Context, key actioncache.Key) (*repb.ActionResult, error)
	// Put stores a result.
	Put(ctx context.Context, key actioncache.Key, result *repb.ActionResult) error
	// Delete removes one.
	Delete(key actioncache.Key) error
}

// Fetcher brings blobs here.
type Fetcher interface {
	// Fetch gives the blobs that nobody has. hints are peers likely to have all.
	Fetch(ctx context.Context, ds []digest.Digest, hints []peer.ID) ([]digest.Digest, error)
	// FetchTree brings directories below a root in one call, as many as it can, and tells how many bytes came.
	FetchTree(ctx context.Context, root digest.Digest, hints []peer.ID) (int64, error)
}

// Blobs reads what is here.
type Blobs interface {
	// GetBatch gives each blob's content, nil where it is not found.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
}

// Trust tells whose receipts count.
type Trust interface {
	// Trusted reports whether a peer is a member now and not revoked.
	Trusted(id peer.ID) bool
}

// Options shape a Lookup. All but Report, Holders, Far and Distances must be set.
type Options struct {
	Self     peer.ID
	Mesh     string // its id, which every receipt carries
	Keyer    *cid.Keyer
	Locator  locate.Locator // of action results
	Dialer   locate.Dialer
	Receipts *receipt.Store
	Results  Results
	Blobs    Blobs
	Fetcher  Fetcher
	Policy   receipt.Policy
	Trust    Trust
	// Report is told how many results a candidate had of those it was named for. May be nil.
	Report func(id peer.ID, claimed, confirmed int)
	// Holders tells without asking anyone who else has results. May be nil.
	Holders func(keys []cid.Key) [][]peer.ID
	// Hides: blobs may be here that the mesh must not know of. What a result names is then asked of the Fetcher, always.
	Hides bool
	// Far tells at which site a peer stands, if it is another one. Nil: there is one site.
	Far func(id peer.ID) (site string, far bool)
	// Distances is told how long answers of other sites take, and says which are worth asking. Nil: all are.
	Distances *distance.Table
}

// Lookup finds and publishes results. Make it with New.
type Lookup struct {
	options Options
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	calls   sync.WaitGroup

	mu       sync.Mutex // guards everything below
	askers   map[peer.ID]*asker
	silent   map[peer.ID]silence   // who did not answer in time
	negative map[cid.Key]time.Time // misses until then
	forgers  map[peer.ID]struct{}
	flights  map[cid.Key]*flight
	closed   bool

	stat counters
}

// counters count since the start.
type counters struct {
	silent, negative, spared, asked, hits, refused, incomplete, disagreements atomic.Int64
}

// Stat counts what came of lookups since the start.
type Stat struct {
	Silent        int64 // misses without any message
	Negative      int64 // misses remembered
	Spared        int64 // misses for which another site was not asked: running takes less time
	Asked         int64 // lookups for which a peer was asked
	Hits          int64
	Refused       int64 // receipts that were malformed, of others, or not trusted
	Incomplete    int64 // receipts whose blobs nobody had
	Disagreements int64 // receipts that contradict another
}

// Stat gives the counts.
func (l *Lookup) Stat() Stat {
	s := &l.stat
	return Stat{s.silent.Load(), s.negative.Load(), s.spared.Load(), s.asked.Load(), s.hits.Load(), s.refused.Load(), s.incomplete.Load(), s.disagreements.Load()}
}

// New makes a Lookup.
func New(o Options) *Lookup {
	ctx, cancel := context.WithCancel(context.Background())
	return &Lookup{options: o, ctx: ctx, cancel: cancel, askers: map[peer.ID]*asker{}, silent: map[peer.ID]silence{},
		negative: map[cid.Key]time.Time{}, forgers: map[peer.ID]struct{}{}, flights: map[cid.Key]*flight{}}
}

// Close ends every call.
func (l *Lookup) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.calls.Wait()
}

// errClosed is what asking gives after Close.
var errClosed = errors.New("lookup is closed")

// Publish signs a result made here, stores the receipt and announces it. The caller has stored the result.
func (l *Lookup) Publish(ctx context.Context, by receipt.Signer, s receipt.Statement) error {
	s.Mesh = l.options.Mesh
	r, err := receipt.Sign(by, s)
	if err != nil {
		return err
	}
	key := l.options.Keyer.Result(s.Action, s.Root)
	if err := l.keep(key, r); err != nil {
		return err
	}
	return l.announce(ctx, key)
}

// Accept stores the receipt of another executor that came otherwise than by Find, with the result it tells
// of, and announces it. The blobs must be here. Errors: receipt.ErrInvalid, receipt.ErrUntrusted.
func (l *Lookup) Accept(ctx context.Context, raw []byte, key actioncache.Key) error {
	r, err := l.check(raw, key)
	if err != nil {
		return err
	}
	place := l.options.Keyer.Result(key.Action, key.Root)
	if err := l.keep(place, r); err != nil {
		return err
	}
	if err := l.put(ctx, key, r); err != nil {
		return err
	}
	if l.options.Receipts.Quarantined(place) { // the contradiction may have come before
		if err := l.options.Results.Delete(key); err != nil {
			return err
		}
	}
	return l.announce(ctx, place)
}

// Note stores the receipt of another executor whose result is not taken: what it says may contradict another's. Errors:
// receipt.ErrInvalid, receipt.ErrUntrusted.
func (l *Lookup) Note(raw []byte, key actioncache.Key) error {
	r, err := l.check(raw, key)
	if err != nil {
		return err
	}
	return l.keep(l.options.Keyer.Result(key.Action, key.Root), r)
}

// put stores a result on the word of a receipt that is kept, unless its executor was revoked meanwhile.
//
//	put                               revocation
//	check: trusted
//	                                  trusted no more
//	                                  drop receipts, delete their results
//	Results.Put
//	trusted no more: Results.Delete
//
// Had it still been trusted, the revocation would come after Results.Put, and find the receipt.
// Errors: receipt.ErrUntrusted.
func (l *Lookup) put(ctx context.Context, key actioncache.Key, r *receipt.Receipt) error {
	if err := l.options.Results.Put(ctx, key, r.Result); err != nil {
		return err
	}
	err := l.trusted(r.Statement)
	if err != nil {
		err = errors.Join(err, l.options.Results.Delete(key))
	}
	return err
}

// trusted fails with receipt.ErrUntrusted unless the executor counts now.
func (l *Lookup) trusted(s receipt.Statement) error {
	if s.Executor == l.options.Self || l.options.Trust.Trusted(s.Executor) {
		return nil
	}
	return fmt.Errorf("%w: %s", receipt.ErrUntrusted, s.Executor.Short())
}

// keep stores a receipt and ends a miss that was remembered. A contradiction is counted, and what was taken
// on another's word before is not served any more: only what this node made itself is.
func (l *Lookup) keep(key cid.Key, r *receipt.Receipt) error {
	l.mu.Lock()
	delete(l.negative, key)
	l.mu.Unlock()
	disagree, err := l.options.Receipts.Put(key, r)
	if !disagree || err != nil {
		return err
	}
	l.stat.disagreements.Add(1)
	known, err := l.options.Receipts.Get([]cid.Key{key})
	if err != nil {
		return err
	}
	if r.Executor == l.options.Self || (receipt.Policy{}).Choose(l.options.Self, known[0]) != nil {
		return nil
	}
	return l.options.Results.Delete(actioncache.Key{Action: r.Action, Root: r.Root})
}

// Adopt takes a result in that another member made and holds: it checks the receipt, which belongs under
// key, brings every blob here, from that member first, and announces the result. A node that does not believe
// one member alone adopts nothing. Errors: receipt.ErrInvalid, receipt.ErrUntrusted, ErrNotFound when it
// cannot be had whole, or what the local stores failed with.
func (l *Lookup) Adopt(ctx context.Context, raw []byte, key cid.Key, from peer.ID) error {
	s, err := receipt.Peek(raw)
	if err != nil {
		return err
	}
	if l.options.Keyer.Result(s.Action, s.Root) != key {
		return fmt.Errorf("%w: it belongs elsewhere", receipt.ErrInvalid)
	}
	r, err := l.check(raw, actioncache.Key{Action: s.Action, Root: s.Root})
	if err != nil {
		return err
	}
	if err := l.keep(key, r); err != nil {
		return err
	}
	if l.options.Policy.Agree != 1 || l.options.Receipts.Quarantined(key) {
		return fmt.Errorf("%w: one word is not enough", receipt.ErrUntrusted)
	}
	_, err = l.complete(ctx, actioncache.Key{Action: s.Action, Root: s.Root}, r, []peer.ID{from, r.Executor})
	if errors.Is(err, errIncomplete) {
		return fmt.Errorf("%w: %w", &missError{s.Action}, err)
	}
	if err != nil {
		return err
	}
	return l.announce(ctx, key)
}

// announce tells the mesh that the result is here.
func (l *Lookup) announce(ctx context.Context, key cid.Key) error {
	if err := l.options.Locator.Announce(ctx, []cid.Key{key}); err != nil {
		return fmt.Errorf("announce a result: %w", err)
	}
	return nil
}

// check believes a receipt as far as form, signature and trust go.
func (l *Lookup) check(raw []byte, key actioncache.Key) (*receipt.Receipt, error) {
	r, err := receipt.Parse(raw)
	if err != nil {
		return nil, err
	}
	if err := r.Check(l.options.Mesh, key.Action, key.Root); err != nil {
		return nil, err
	}
	if err := l.trusted(r.Statement); err != nil {
		return nil, err
	}
	return r, nil
}
