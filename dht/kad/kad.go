package kad

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	datastore "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/host"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	multihash "github.com/multiformats/go-multihash"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// How the DHT is set up.
const (
	// BucketSize is k: to how many members a key is told, and how many are near to it.
	BucketSize = 10
	// ProvideValidity is how long a record is kept that is not announced again.
	ProvideValidity = 30 * time.Minute
	// Budget is how long a Find may take.
	Budget = 150 * time.Millisecond
	// Parallel is how many keys are walked to at once.
	Parallel = 32

	concurrency  = 10
	maxProviders = 16
	prefix       = protocol.ID("/buildmesh")
)

// Names are peer ids as libp2p has them, both ways.
type Names struct {
	To   func(peer.ID) lpeer.ID
	From func(lpeer.ID) (peer.ID, error)
}

// Locator finds through the DHT. It implements locate.Locator. Make it with New, end it with Close.
type Locator struct {
	host     host.Host
	names    Names
	self     peer.ID
	dht      *dht.IpfsDHT
	provider *provider.SweepingProvider
	keeper   *keeper
	teller   *teller
	budget   time.Duration // Budget
}

// New joins the DHT of the members that host is connected to and will be connected to.
func New(h host.Host, names Names) (*Locator, error) {
	self, err := names.From(h.ID())
	if err != nil {
		return nil, err
	}
	l := &Locator{host: h, names: names, self: self, keeper: newKeeper(), budget: Budget}
	l.dht, err = dht.New(h, dht.Mode(dht.ModeServer), dht.ProtocolPrefix(prefix), dht.BucketSize(BucketSize),
		dht.Concurrency(concurrency), dht.Resiliency(1), dht.DisableValues(), dht.RoutingTablePeerDiversityFilter(nil),
		dht.ProviderDatastore(newStore()), dht.ProviderManagerOpts(records.ProvideValidity(ProvideValidity), records.CleanupInterval(ProvideValidity/6)))
	if err != nil {
		return nil, fmt.Errorf("open kad-dht: %w", err)
	}
	l.teller = newTeller(caller{h}, l.dht.MessageSender())
	l.provider, err = provider.New(provider.WithHost(h), provider.WithRouter(l.dht), provider.WithMessageSender(l.teller),
		provider.WithSelfAddrs(l.dht.FilteredAddrs), provider.WithReplicationFactor(BucketSize), provider.WithReprovideInterval(ProvideValidity/2),
		provider.WithMaxReprovideDelay(ProvideValidity/6), provider.WithResumeCycle(false),
		provider.WithDatastore(dssync.MutexWrap(datastore.NewMapDatastore())))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open kad-dht: %w", err), l.dht.Close())
	}
	h.SetStreamHandler(askProtocol, l.keeper.serve)
	h.SetStreamHandler(tellProtocol, listener{l.dht.ProviderStore()}.serve)
	return l, nil
}

// Close leaves the DHT.
func (l *Locator) Close() error {
	l.host.RemoveStreamHandler(askProtocol)
	l.host.RemoveStreamHandler(tellProtocol)
	err := l.provider.Close()
	l.teller.close()
	return errors.Join(err, l.dht.Close())
}

// Announce implements locate.Locator.
func (l *Locator) Announce(ctx context.Context, keys []cid.Key) error {
	l.keeper.add(keys)
	if len(keys) == 0 {
		return ctx.Err()
	}
	if err := l.provider.StartProviding(true, hashes(keys)...); err != nil {
		return fmt.Errorf("announce to kad-dht: %w", err)
	}
	return ctx.Err()
}

// Forget implements locate.Locator.
func (l *Locator) Forget(ctx context.Context, keys []cid.Key) error {
	l.keeper.remove(keys)
	if len(keys) == 0 {
		return ctx.Err()
	}
	if err := l.provider.StopProviding(hashes(keys)...); err != nil {
		return fmt.Errorf("forget in kad-dht: %w", err)
	}
	return ctx.Err()
}

// hashes are keys as the DHT has them.
func hashes(keys []cid.Key) []multihash.Multihash {
	all := make([]multihash.Multihash, len(keys))
	for i, k := range keys {
		all[i] = k.CID().Hash()
	}
	return all
}

// Find implements locate.Locator.
func (l *Locator) Find(ctx context.Context, keys []cid.Key) ([][]peer.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found := make([][]peer.ID, len(keys))
	if len(keys) == 0 {
		return found, nil
	}
	if l.dht.RoutingTable().Size() == 0 {
		return nil, errors.New("ask kad-dht: no member of it is known")
	}
	within, cancel := context.WithTimeout(ctx, l.budget*time.Duration(1+(len(keys)-1)/Parallel))
	defer cancel()
	var walking sync.WaitGroup
	next := make(chan int)
	for range min(Parallel, len(keys)) {
		walking.Go(func() {
			for i := range next {
				found[i] = l.walk(within, keys[i])
			}
		})
	}
	for i := range keys {
		next <- i
	}
	close(next)
	walking.Wait()
	l.confirm(ctx, keys, found)
	return found, ctx.Err()
}

// walk gives who is said to have one key, in an order of nobody's choosing.
func (l *Locator) walk(ctx context.Context, key cid.Key) []peer.ID {
	ctx, cancel := context.WithTimeout(ctx, l.budget)
	defer cancel()
	var ids []peer.ID
	for info := range l.dht.FindProvidersAsync(ctx, key.CID(), maxProviders) {
		id, err := l.names.From(info.ID)
		if err == nil && id != l.self && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// confirm asks those found what they still have, all at once, and takes off what they do not.
func (l *Locator) confirm(ctx context.Context, keys []cid.Key, found [][]peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, l.budget)
	defer cancel()
	places := map[peer.ID][]int{}
	for i, ids := range found {
		for _, id := range ids {
			places[id] = append(places[id], i)
		}
	}
	var mu sync.Mutex // guards has
	has := map[peer.ID]map[int]bool{}
	var asking sync.WaitGroup
	for id, at := range places {
		asking.Go(func() {
			part := make([]cid.Key, len(at))
			for i, p := range at {
				part[i] = keys[p]
			}
			answer, err := l.ask(ctx, id, part)
			if err != nil {
				return // who does not answer this gives no result either
			}
			mine := map[int]bool{}
			for i, p := range at {
				mine[p] = answer[i]
			}
			mu.Lock()
			defer mu.Unlock()
			has[id] = mine
		})
	}
	asking.Wait()
	for i := range found {
		found[i] = slices.DeleteFunc(found[i], func(id peer.ID) bool { return !has[id][i] })
	}
}
