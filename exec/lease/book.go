package lease

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Times of a lease, as both sides keep them.
const (
	TTL       = 10 * time.Second        // from a grant to Run, from one beat to the next, from a broken call to the next, at the latest
	Grace     = 10 * time.Second        // after that, until the action is killed
	BeatEvery = 2500 * time.Millisecond // between beats
	OfferTTL  = 2 * time.Second         // an offered slot is held
	HoldMax   = 10 * time.Minute        // outputs are pinned, however often the initiator beats
)

// Bounds of what one caller may hold of an executor.
const (
	maxLeases     = 1024
	maxTickets    = 256
	maxInvocation = 256     // bytes of its name
	maxBypass     = 32      // how often a ticket that does not fit is passed
	maxCores      = 1024    // of one request
	maxMemory     = 1 << 50 // bytes of one request; sums of a few do not overflow
)

// ErrStale refuses a claim: no such lease, or it was given to another peer, attempt or epoch.
var ErrStale = errors.New("stale lease")

// ID names a lease. Nobody can guess it.
type ID [16]byte

// Claim is what a lease answers to.
type Claim struct {
	Lease   ID
	Caller  peer.ID
	Attempt int32
	Epoch   uint64
}

// Request asks for room for one action.
type Request struct {
	Caller      peer.ID
	Action      digest.Digest
	Invocation  string
	Attempt     int32
	Epoch       uint64
	Cores       float64
	MemoryBytes int64
	Alone       bool // not together with an equal action
}

// Refusal is the answer when there is no room.
type Refusal struct {
	Reason    string
	FreeCores float64
	FreeBytes int64
}

// Ticket is the wish to be offered the next free slot.
type Ticket struct {
	Caller      peer.ID
	Invocation  string
	Cores       float64
	MemoryBytes int64
}

// Effect is what the caller of a Book is to do: *Kill, *Unpin, *Offered or *Warn.
type Effect interface{ effect() }

// Kill ends the run of an action. Finished must follow.
type Kill struct {
	Lease  ID // the one that began the run
	Reason string
}

// Unpin lets the outputs of a run go.
type Unpin struct{ Lease ID }

// Offered is to be told to the holder of a ticket.
type Offered struct {
	Caller     peer.ID
	Offer      uint64
	Invocation string
	Cores      float64
	FreeBytes  int64
}

// Warn tells an initiator that its lease ends after a grace.
type Warn struct {
	Lease ID
	Grace time.Duration
}

func (*Kill) effect()    {}
func (*Unpin) effect()   {}
func (*Offered) effect() {}
func (*Warn) effect()    {}

// phase of a run.
type phase uint8

const (
	reserved phase = iota
	running
	killed   // until Finished
	finished // outputs pinned
)

// use is one action's use of the machine; several leases may share it.
type use struct {
	phase  phase
	first  ID // names it in effects
	action digest.Digest
	alone  bool
	cores  float64
	bytes  int64
	leases []*held
	began  time.Time
	ended  time.Time
}

// held is a lease.
type held struct {
	Claim
	use     *use
	started bool
	due     time.Time // of the next beat; the zero time for this machine's own
	broken  time.Time // when the call that its beats came over broke; the zero time: not since the last one
	evict   time.Time // set when it ends by eviction
}

// Options of a Book.
type Options struct {
	Self  peer.ID // whose leases need no beats and no welcome
	NewID func() ID
}

// Book decides who may use this machine. It is pure: the caller gives time, carries Effects out, and keeps it from
// concurrent use.
type Book struct {
	options             Options
	cores, freeCores    float64
	bytes, freeBytes    int64
	guests, guestsInUse float64 // cores lent to others at most, and now
	unwelcome           string  // why not all are lent, in a person's words
	measured            memory

	leases  map[ID]*held
	runs    map[ID]*use // by the lease that began them
	byWork  map[digest.Digest]*use
	counts  map[peer.ID]int // leases, by caller
	tickets tickets
	effects []Effect
}

// NewBook makes a Book of a machine; memoryBytes 0: memory is not counted.
func NewBook(cores float64, memoryBytes int64, o Options) *Book {
	return &Book{
		options: o, cores: cores, freeCores: cores, bytes: memoryBytes, freeBytes: memoryBytes, guests: cores,
		leases: map[ID]*held{}, runs: map[ID]*use{}, byWork: map[digest.Digest]*use{}, counts: map[peer.ID]int{},
		tickets: newTickets(),
	}
}

// Effects gives what is to be done since the last call, in order.
func (b *Book) Effects() []Effect {
	e := b.effects
	b.effects = nil
	return e
}

func (b *Book) do(e Effect) { b.effects = append(b.effects, e) }

// Free is the room a guest may have now.
func (b *Book) Free() (cores float64, bytes int64) {
	return max(0, min(b.freeCores, b.guests-b.guestsInUse)), b.freeMemory()
}

// Usage is a Book at one moment.
type Usage struct {
	Cores, FreeCores float64
	Bytes, FreeBytes int64
	Running          int
	Guests           int // runs for others
	Tickets          int
}

// Usage tells how the machine is used.
func (b *Book) Usage() Usage {
	u := Usage{Cores: b.cores, FreeCores: b.freeCores, Bytes: b.bytes, FreeBytes: b.freeBytes, Tickets: b.tickets.count}
	for _, r := range b.runs {
		if r.phase == finished {
			continue
		}
		u.Running++
		if !b.own(r) {
			u.Guests++
		}
	}
	return u
}

// own reports whether a run is this machine's own.
func (b *Book) own(r *use) bool {
	return slices.ContainsFunc(r.leases, func(l *held) bool { return l.Caller == b.options.Self })
}

// Reserve grants room at once or refuses.
func (b *Book) Reserve(now time.Time, r Request) (id ID, joined bool, refusal *Refusal) {
	if why := b.invalid(r); why != "" {
		return ID{}, false, b.refuse(why)
	}
	if x := b.joinable(r); x != nil {
		return b.grant(now, r, x).Lease, true, nil
	}
	if why := b.noRoom(r); why != "" {
		return ID{}, false, b.refuse(why)
	}
	if b.starving(r.Caller) {
		return ID{}, false, b.refuse("a wider action waits for this machine")
	}
	return b.grant(now, r, b.open(r)).Lease, false, nil
}

func (b *Book) refuse(reason string) *Refusal {
	cores, bytes := b.Free()
	return &Refusal{Reason: reason, FreeCores: cores, FreeBytes: bytes}
}

// invalid says what is wrong with a request itself.
func (b *Book) invalid(r Request) string {
	switch {
	case !(r.Cores > 0 && r.Cores <= maxCores) || r.MemoryBytes < 0 || r.MemoryBytes > maxMemory || r.Attempt < 1 || r.Action.IsZero() || len(r.Invocation) > maxInvocation:
		return "malformed request"
	case b.counts[r.Caller] >= maxLeases && r.Caller != b.options.Self:
		return "too many leases"
	}
	return ""
}

// noRoom says why there is no room for a request; "" when there is.
func (b *Book) noRoom(r Request) string {
	switch {
	case r.Cores > b.freeCores+1e-9:
		return "no free slot"
	case b.bytes > 0 && r.MemoryBytes > b.freeBytes:
		return fmt.Sprintf("only %d MiB of memory are not leased, of %d MiB for the action", max(b.freeBytes, 0)>>20, r.MemoryBytes>>20)
	case r.Caller == b.options.Self:
		return ""
	case b.guests == 0:
		return b.because("takes no guests now")
	case r.Cores > b.guests-b.guestsInUse+1e-9:
		return b.because("no free slot for guests")
	}
	return b.noMemory(r.MemoryBytes)
}

// because adds the owner's reason to a refusal.
func (b *Book) because(refusal string) string {
	if b.unwelcome == "" {
		return refusal
	}
	return refusal + ": " + b.unwelcome
}

// joinable finds a run of an equal action for another caller.
func (b *Book) joinable(r Request) *use {
	x := b.byWork[r.Action]
	if r.Alone || x == nil || x.alone || x.phase == killed || x.bytes < r.MemoryBytes && b.bytes > 0 {
		return nil
	}
	if slices.ContainsFunc(x.leases, func(l *held) bool { return l.Caller == r.Caller || !l.evict.IsZero() }) {
		return nil
	}
	return x
}

// open takes room for a new run.
func (b *Book) open(r Request) *use {
	x := &use{action: r.Action, alone: r.Alone, cores: r.Cores, bytes: r.MemoryBytes}
	if !r.Alone && b.byWork[r.Action] == nil {
		b.byWork[r.Action] = x
	}
	b.freeCores -= x.cores
	b.freeBytes -= x.bytes
	if r.Caller != b.options.Self {
		b.guestsInUse += x.cores
	}
	return x
}

// grant adds a lease to a run.
func (b *Book) grant(now time.Time, r Request, x *use) *held {
	l := &held{Claim: Claim{b.options.NewID(), r.Caller, r.Attempt, r.Epoch}, use: x}
	if r.Caller != b.options.Self {
		l.due = now.Add(TTL)
	}
	if len(x.leases) == 0 {
		x.first = l.Lease
		b.runs[x.first] = x
	}
	guest := !b.own(x)
	x.leases = append(x.leases, l)
	if guest && len(x.leases) > 1 && b.own(x) && x.phase != finished {
		b.guestsInUse -= x.cores // it is our own now as well
	}
	b.leases[l.Lease] = l
	b.counts[r.Caller]++
	return l
}

// find checks a claim. Errors wrap ErrStale.
func (b *Book) find(c Claim) (*held, error) {
	l := b.leases[c.Lease]
	if l == nil || l.Claim != c {
		return nil, fmt.Errorf("lease %x of %s: %w", c.Lease[:4], c.Caller.Short(), ErrStale)
	}
	return l, nil
}

// Start begins the run of a lease, or takes it up again. begin reports whether the caller is to run the action now; run
// names the run, also when another lease began it. Errors wrap ErrStale.
func (b *Book) Start(now time.Time, c Claim, action digest.Digest) (id ID, begin bool, err error) {
	l, err := b.find(c)
	if err == nil && l.use.action != action {
		err = fmt.Errorf("lease %x is for another action: %w", c.Lease[:4], ErrStale)
	}
	if err == nil && l.use.phase == killed {
		err = fmt.Errorf("lease %x was ended: %w", c.Lease[:4], ErrStale)
	}
	if err != nil {
		return ID{}, false, err
	}
	l.started = true
	b.renew(now, l)
	if l.use.phase == reserved {
		l.use.phase, l.use.began = running, now
		return l.use.first, true, nil
	}
	return l.use.first, false, nil
}

// Beat renews a lease whose action runs, or whose outputs are fetched. Errors wrap ErrStale.
func (b *Book) Beat(now time.Time, c Claim) error {
	l, err := b.find(c)
	if err != nil {
		return err
	}
	if l.started {
		b.renew(now, l)
	}
	return nil
}

func (b *Book) renew(now time.Time, l *held) {
	l.broken = time.Time{}
	if l.Caller != b.options.Self {
		l.due = now.Add(TTL)
	}
}

// Broke notes that the call broke over which a lease was kept. While the machines are up and the wire is plugged in, that is how
// the death of an initiator shows. One that lives calls again at once, and gives up after TTL.
func (b *Book) Broke(now time.Time, c Claim) {
	if l, err := b.find(c); err == nil {
		l.broken = now
	}
}

// Finished notes that nothing of a run is left but its outputs, which stay pinned for those who have not acknowledged.
func (b *Book) Finished(now time.Time, id ID) {
	x := b.runs[id]
	if x == nil || x.phase == finished {
		return
	}
	b.giveBack(x)
	x.phase, x.ended = finished, now
	if len(x.leases) == 0 {
		b.forget(x)
	}
	b.offer(now)
}

// shared reports whether more than one lease waits for the result of a run.
func (b *Book) shared(id ID) bool {
	x := b.runs[id]
	return x != nil && len(x.leases) > 1
}

// giveBack frees the room of a run. It can no longer be joined.
func (b *Book) giveBack(x *use) {
	b.freeCores += x.cores
	b.freeBytes += x.bytes
	if !b.own(x) {
		b.guestsInUse = max(0, b.guestsInUse-x.cores)
	}
	if b.byWork[x.action] == x {
		delete(b.byWork, x.action)
	}
}

func (b *Book) forget(x *use) {
	delete(b.runs, x.first)
	b.do(&Unpin{x.first})
}

// Ack ends a lease whose result is safe with its initiator. Errors wrap ErrStale.
func (b *Book) Ack(now time.Time, c Claim) error {
	l, err := b.find(c)
	if err != nil {
		return err
	}
	b.end(now, l, "acknowledged")
	return nil
}

// Cancel ends a lease. One that is not known is ended already, by whomever it was: Cancel may be repeated.
func (b *Book) Cancel(now time.Time, c Claim) {
	if l, err := b.find(c); err == nil {
		b.end(now, l, "cancelled by its initiator")
	}
}

// end removes a lease; the run ends with its last one.
func (b *Book) end(now time.Time, l *held, reason string) {
	x := l.use
	wasOwn := b.own(x)
	delete(b.leases, l.Lease)
	if b.counts[l.Caller]--; b.counts[l.Caller] <= 0 {
		delete(b.counts, l.Caller)
	}
	x.leases = slices.DeleteFunc(x.leases, func(y *held) bool { return y == l })
	if wasOwn && !b.own(x) && x.phase != finished {
		b.guestsInUse += x.cores // it goes on for guests
	}
	if len(x.leases) > 0 {
		return
	}
	switch x.phase {
	case reserved:
		b.giveBack(x)
		delete(b.runs, x.first)
		b.offer(now)
	case running:
		x.phase = killed
		if b.byWork[x.action] == x {
			delete(b.byWork, x.action)
		}
		b.do(&Kill{Lease: x.first, Reason: reason})
	case finished:
		b.forget(x)
	}
}
