package replicate

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// Times and bounds of copying.
const (
	// After is how long a result waits before others are asked to keep it.
	After = 2 * time.Second
	// RetryAfter is how long it waits when nobody would, and twice as long each time, at most RetryMax: most who refuse do
	// so because they take other copies at that moment.
	RetryAfter = 2 * time.Second
	RetryMax   = 30 * time.Second
	// KeepFor is how long one call may take, and KeepRate how many bytes a second must come beyond that: what
	// takes longer is asked for again, and goes on where it stood. Nothing else is copied meanwhile.
	KeepFor  = 10 * time.Second
	KeepRate = 256 << 10
	// MaxBatch is how many results one call asks to keep.
	MaxBatch = 128

	lookEvery = 5 * time.Second // whether there is somebody, and a network that is not metered

	maxOpen = 1 << 17 // results without all their holders that are remembered
)

// Member is another member that may keep something.
type Member struct {
	ID      peer.ID
	Battery bool // it does not run on mains power
	Metered bool // its network is paid by the byte
}

// Pinner keeps a result's blobs from eviction.
type Pinner interface {
	// Pin holds the blobs of a result until release is called, and gives their size. An error means that
	// the result is not whole here any more.
	Pin(ctx context.Context, key cid.Key) (release func(), bytes int64, err error)
}

// Options shape a Copier. All must be set but Metered.
type Options struct {
	Others   int // how many other members shall hold a result
	Members  func() []Member
	Dialer   locate.Dialer
	Locator  locate.Locator
	Pinner   Pinner
	PinBytes int64
	Metered  func() bool   // this node's network is paid by the byte now; nil: never
	After    time.Duration // zero: After
}

// Copier has results held by others. Make it with New.
type Copier struct {
	options Options
	woken   chan struct{} // of one element: there is something new

	mu     sync.Mutex // guards everything below
	open   map[cid.Key]*copying
	fresh  []*copying // of open, not pinned yet
	pinned int64
	stat   Stat

	silent map[peer.ID]bool // who did not answer the last time; only Run uses it
}

// copying is a result on its way to its holders.
type copying struct {
	key     cid.Key
	due     time.Time
	again   time.Duration // from the next round in which nobody takes it to the one after
	release func()        // of its pin; nil: none
	bytes   int64
	holders []peer.ID
	tried   []peer.ID // in this round
}

// Stat counts.
type Stat struct {
	Open    int   // results that lack holders now
	Held    int64 // results that got all their holders, since the start
	Refused int64 // calls in which a member took nothing
	Pinned  int64 // bytes
}

// New makes a Copier. Its owner calls Run.
func New(o Options) *Copier {
	if o.Metered == nil {
		o.Metered = func() bool { return false }
	}
	if o.After == 0 {
		o.After = After
	}
	return &Copier{options: o, woken: make(chan struct{}, 1), open: map[cid.Key]*copying{}, silent: map[peer.ID]bool{}}
}

// Note says that this node has made a result, or has made it before it was started.
func (c *Copier) Note(keys ...cid.Key) {
	if c.options.Others <= 0 {
		return
	}
	due := time.Now().Add(c.options.After)
	for _, k := range keys {
		c.mu.Lock()
		if c.open[k] == nil && len(c.open) < maxOpen {
			one := &copying{key: k, due: due, again: RetryAfter}
			c.open[k] = one
			c.fresh = append(c.fresh, one)
		}
		c.mu.Unlock()
	}
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// pinFresh pins what was noted since the last time.
func (c *Copier) pinFresh(ctx context.Context) {
	c.mu.Lock()
	fresh := c.fresh
	c.fresh = nil
	c.mu.Unlock()
	for _, one := range fresh {
		c.pin(ctx, one)
	}
}

// pin pins a result, unless too much is pinned already.
func (c *Copier) pin(ctx context.Context, one *copying) {
	release, bytes, err := c.options.Pinner.Pin(ctx, one.key)
	if err != nil {
		c.drop(one)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if one.bytes = bytes; c.pinned+bytes > c.options.PinBytes {
		release()
		return
	}
	c.pinned += bytes
	one.release = release
}

// drop ends the copying of a result.
func (c *Copier) drop(one *copying) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[one.key] != one {
		return
	}
	delete(c.open, one.key)
	if one.release != nil {
		c.pinned -= one.bytes
		one.release()
	}
}

// Stat gives the counts.
func (c *Copier) Stat() Stat {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stat
	s.Open, s.Pinned = len(c.open), c.pinned
	return s
}

// Run copies until ctx ends, and releases every pin then.
func (c *Copier) Run(ctx context.Context) {
	defer c.end()
	for ctx.Err() == nil {
		c.pinFresh(ctx)
		due, wait := c.due()
		if len(due) > 0 && !c.options.Metered() && len(c.options.Members()) > 0 {
			c.round(ctx, due)
			continue
		}
		if len(due) > 0 {
			wait = lookEvery
		}
		timer := time.NewTimer(max(wait, time.Millisecond))
		select {
		case <-c.woken:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func (c *Copier) end() {
	c.mu.Lock()
	all := make([]*copying, 0, len(c.open))
	for _, one := range c.open {
		all = append(all, one)
	}
	c.mu.Unlock()
	for _, one := range all {
		c.drop(one)
	}
}

// due gives the results whose turn it is, or how long until there is one.
func (c *Copier) due() ([]*copying, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, wait := time.Now(), RetryMax
	var due []*copying
	for _, one := range c.open {
		if left := one.due.Sub(now); left > 0 {
			wait = min(wait, left)
		} else if len(due) < MaxBatch {
			due = append(due, one)
		}
	}
	slices.SortFunc(due, func(a, b *copying) int { return slices.Compare(a.key[:], b.key[:]) })
	return due, wait
}

// round asks one member after the other to keep what lacks holders.
func (c *Copier) round(ctx context.Context, due []*copying) {
	members := c.candidates(due[0].key)
	claimed := c.claimed(ctx, due)
	for left := slices.Clone(due); len(left) > 0 && ctx.Err() == nil; {
		asks := map[peer.ID][]*copying{}
		var order []peer.ID
		for i, one := range left {
			id, found := next(one, claimed[one], members)
			if !found {
				continue
			}
			if asks[id] == nil {
				order = append(order, id)
			}
			asks[id] = append(asks[id], left[i])
		}
		if len(order) == 0 {
			break
		}
		for _, id := range order {
			c.ask(ctx, id, asks[id])
		}
		left = slices.DeleteFunc(left, func(one *copying) bool { return len(one.holders) >= c.options.Others })
	}
	now := time.Now()
	for _, one := range due {
		if len(one.holders) >= c.options.Others {
			c.drop(one)
			c.mu.Lock()
			c.stat.Held++
			c.mu.Unlock()
			continue
		}
		c.mu.Lock()
		one.due, one.tried = now.Add(one.again), nil
		one.again = min(2*one.again, RetryMax)
		c.mu.Unlock()
	}
}

// candidates are the members that may be asked, the best first: who answers, then who is on mains power, and among equals
// in an order that is another one for each batch, so that copies spread.
func (c *Copier) candidates(key cid.Key) []peer.ID {
	all := slices.DeleteFunc(slices.Clone(c.options.Members()), func(m Member) bool { return m.Metered })
	score := func(m Member) (s [len(peer.ID{})]byte) {
		for i := range s {
			s[i] = m.ID[i] ^ key[i%len(key)]
		}
		return s
	}
	rank := func(m Member) (n int) {
		if c.silent[m.ID] {
			n += 2
		}
		if m.Battery {
			n++
		}
		return n
	}
	slices.SortFunc(all, func(a, b Member) int {
		x, y := score(a), score(b)
		return cmp.Or(cmp.Compare(rank(a), rank(b)), slices.Compare(x[:], y[:]))
	})
	ids := make([]peer.ID, len(all))
	for i, m := range all {
		ids[i] = m.ID
	}
	return ids
}

// claimed tells who is said to have what is due.
func (c *Copier) claimed(ctx context.Context, due []*copying) map[*copying][]peer.ID {
	keys := make([]cid.Key, len(due))
	for i, one := range due {
		keys[i] = one.key
	}
	all := map[*copying][]peer.ID{}
	found, err := c.options.Locator.Find(ctx, keys)
	if err != nil {
		return all // they are asked like all others
	}
	for i, one := range due {
		all[one] = found[i]
	}
	return all
}

// next is whom to ask for one result: those said to have it, then the others.
func next(one *copying, claimed, members []peer.ID) (peer.ID, bool) {
	for _, ids := range [][]peer.ID{claimed, members} {
		for _, id := range ids {
			if slices.Contains(members, id) && !slices.Contains(one.tried, id) {
				return id, true
			}
		}
	}
	return peer.ID{}, false
}

// ask has one member keep results.
func (c *Copier) ask(ctx context.Context, id peer.ID, some []*copying) {
	q, bytes := &contentv1.KeepRequest{}, int64(0)
	for _, one := range some {
		bytes += one.bytes
		one.tried = append(one.tried, id)
		q.Keys = append(q.Keys, one.key[:])
	}
	ctx, cancel := context.WithTimeout(ctx, KeepFor+time.Duration(bytes/KeepRate)*time.Second)
	defer cancel()
	var r *contentv1.KeepResponse
	conn, err := c.options.Dialer.Control(ctx, id)
	if err == nil {
		r, err = contentv1.NewContentClient(conn).Keep(ctx, q)
	}
	if err != nil {
		c.silent[id] = true
	} else {
		delete(c.silent, id)
	}
	any := false
	if err == nil && len(r.Kept) == len(some) {
		for i, one := range some {
			if r.Kept[i] {
				one.holders, any = append(one.holders, id), true
			}
		}
	}
	if !any {
		c.mu.Lock()
		c.stat.Refused++
		c.mu.Unlock()
	}
}
