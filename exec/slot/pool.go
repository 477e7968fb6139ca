package slot

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
)

// Capacity is what a Pool shares out.
type Capacity struct {
	Cores       float64 // above 0
	MemoryBytes int64   // 0: memory is not shared out, and no request for it is refused
	MaxBypass   int     // how often a request that does not fit may be passed; default 32
}

// Request asks for a part of the machine.
type Request struct {
	Cores       float64 // 0 asks for one core, or the whole machine where that is less
	MemoryBytes int64   // 0 asks for none
	Priority    int32   // lower is more urgent
	Invocation  string  // those with the same one share a turn
}

// TooLargeError says that a request can never be granted by this pool.
type TooLargeError struct {
	Property        string // cores or memory
	Asked, Capacity string
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s: %s asked, the machine has %s", e.Property, e.Asked, e.Capacity)
}

// Stat is a Pool at one moment.
type Stat struct {
	Cores, FreeCores             float64
	MemoryBytes, FreeMemoryBytes int64
	Running, Waiting             int
}

// Pool shares out one machine. Make it with New.
type Pool struct {
	capacity amount
	memory   bool

	mu      sync.Mutex // guards queue and running
	queue   queue
	running int
}

// New makes a pool of a capacity. It panics when there is no core to share out, a programmer's error.
func New(c Capacity) *Pool {
	total := amount{millicores: millicores(c.Cores), bytes: c.MemoryBytes}
	if total.millicores <= 0 || total.bytes < 0 {
		panic("slot: a pool without cores")
	}
	if c.MaxBypass <= 0 {
		c.MaxBypass = 32
	}
	return &Pool{
		capacity: total,
		memory:   total.bytes > 0,
		queue:    queue{free: total, maxBypass: c.MaxBypass, maxScan: 64},
	}
}

// Slot is capacity in use.
type Slot struct {
	pool *Pool
	held amount
	once sync.Once
}

// Acquire waits until r is granted. Errors: *TooLargeError at once, ctx's error when it ends first.
//
// The instant of a grant may be the instant ctx ends. Both are decided under p.mu: either the entry
// is still queued and leaves, or it was granted and its capacity goes back.
//
//	grantAll: remove entry, running++, close(granted)        Acquire: <-ctx.Done
//	                                                         lock; entry not queued -> it was granted
//	                                                         give back, grantAll; unlock
func (p *Pool) Acquire(ctx context.Context, r Request) (*Slot, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("wait for a slot: %w", context.Cause(ctx))
	}
	want, err := p.amount(r)
	if err != nil {
		return nil, err
	}
	e := &entry{want: want, priority: r.Priority, invocation: r.Invocation, granted: make(chan struct{})}
	p.mu.Lock()
	p.queue.push(e)
	p.grantAll()
	p.mu.Unlock()
	select {
	case <-e.granted:
		return &Slot{pool: p, held: want}, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.queue.remove(e, false) {
		p.giveBack(want)
	}
	p.grantAll()
	return nil, fmt.Errorf("wait for a slot: %w", context.Cause(ctx))
}

// amount checks r against the whole machine.
func (p *Pool) amount(r Request) (amount, error) {
	if r.Cores < 0 || math.IsNaN(r.Cores) || r.MemoryBytes < 0 {
		return amount{}, fmt.Errorf("slot request %+v is negative", r)
	}
	want := amount{millicores: millicores(r.Cores), bytes: r.MemoryBytes}
	if r.Cores == 0 {
		want.millicores = min(1000, p.capacity.millicores)
	}
	if want.millicores > p.capacity.millicores {
		return amount{}, &TooLargeError{Property: "cores", Asked: cores(want.millicores), Capacity: cores(p.capacity.millicores)}
	}
	if !p.memory {
		want.bytes = 0
	}
	if want.bytes > p.capacity.bytes {
		return amount{}, &TooLargeError{
			Property: "memory", Asked: strconv.FormatInt(want.bytes, 10) + " bytes",
			Capacity: strconv.FormatInt(p.capacity.bytes, 10) + " bytes",
		}
	}
	return want, nil
}

// grantAll wakes everyone who may run now. The caller holds p.mu.
func (p *Pool) grantAll() {
	for e := p.queue.next(); e != nil; e = p.queue.next() {
		p.running++
		close(e.granted)
	}
}

// giveBack frees what a grant reserved. The caller holds p.mu.
func (p *Pool) giveBack(a amount) {
	p.queue.free.add(a)
	p.running--
}

// Release gives the capacity back and wakes who may run next. Only the first call counts.
func (s *Slot) Release() {
	s.once.Do(func() {
		s.pool.mu.Lock()
		defer s.pool.mu.Unlock()
		s.pool.giveBack(s.held)
		s.pool.grantAll()
	})
}

// Cores is how many cores the slot holds.
func (s *Slot) Cores() float64 { return float64(s.held.millicores) / 1000 }

// Stat tells how the pool is used.
func (p *Pool) Stat() Stat {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stat{
		Cores: float64(p.capacity.millicores) / 1000, FreeCores: float64(p.queue.free.millicores) / 1000,
		MemoryBytes: p.capacity.bytes, FreeMemoryBytes: p.queue.free.bytes,
		Running: p.running, Waiting: p.queue.waiting,
	}
}

// millicores rounds up, so that the smallest request is still one.
func millicores(c float64) int64 {
	if c >= math.MaxInt64/2000 {
		return math.MaxInt64 / 2
	}
	return int64(math.Ceil(c*1000 - 1e-6))
}

func cores(milli int64) string { return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64) }
