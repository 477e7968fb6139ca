package flight

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/platform"
)

// NamePrefix begins the name of every flight; 32 hexadecimal digits of randomness follow.
const NamePrefix = "operations/"

// Options is what a Table works with. Blobs, Status, and Executor or Placer must be set; zero values of
// the numbers stand for the defaults given.
type Options struct {
	Blobs    action.Blobs
	Executor Executor
	Results  Results                      // nil: nothing is cached
	Slots    Slots                        // nil: everything runs at once
	Placer   Placer                       // nil: Here, with Executor and Slots
	Merger   Merger                       // nil: what others run is not asked for
	Ended    func(Ending)                 // told of every flight that is over, and of every action that nobody fulfils; must be quick; nil: nobody
	Streams  Follower                     // nil: the output cannot be read while it is written
	Match    func(platform.Request) error // whether any executor fulfils a request; nil: all do
	Status   func(error) error            // gives an error its gRPC status, as an error

	Limits             action.Limits
	WholeRootInstances []string // instances whose input roots are root file systems
	Worker             string   // names this executor in results that name none; default "buildmesh"

	MaxFlights int           // in flight at once; default 20,000
	Retained   int           // finished ones kept; default 1,000
	Retention  time.Duration // how long those are kept; default 5 min
	Abandon    time.Duration // how long an unwatched flight goes on; default 20 s, several of Bazel's retries
}

func (o Options) withDefaults() Options {
	if o.Blobs == nil || o.Executor == nil && o.Placer == nil || o.Status == nil {
		panic("flight: options without Blobs, Status, or an Executor or Placer")
	}
	if o.Placer == nil {
		o.Placer = Here{Executor: o.Executor, Slots: o.Slots}
	}
	if o.Ended == nil {
		o.Ended = func(Ending) {}
	}
	if o.Match == nil {
		o.Match = func(platform.Request) error { return nil }
	}
	if o.Worker == "" {
		o.Worker = "buildmesh"
	}
	o.MaxFlights = orDefault(o.MaxFlights, 20_000)
	o.Retained = orDefault(o.Retained, 1000)
	o.Retention = orDefault(o.Retention, 5*time.Minute)
	o.Abandon = orDefault(o.Abandon, 20*time.Second)
	return o
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value <= 0 {
		return otherwise
	}
	return value
}

// mergeKey tells which executions are equal. Executions that skip the cache are apart from those that
// do not, because the result of the latter may be older than the request.
type mergeKey struct {
	action   digest.Digest
	instance string
	skip     bool
}

// Table holds the flights of one node. Make it with New, end it with Close.
type Table struct {
	options Options
	running sync.WaitGroup // the goroutines of all flights

	mu       sync.Mutex // guards all below; taken before a Flight's mu, never after it
	byName   map[string]*Flight
	joinable map[mergeKey]*Flight // in flight and open to equal requests
	inFlight map[*Flight]bool     // also those whose name was forgotten
	finished []*Flight            // in the order they ended; also in byName
	expiry   *time.Timer
	closed   bool
}

// New makes an empty table.
func New(o Options) *Table {
	t := &Table{
		options:  o.withDefaults(),
		byName:   map[string]*Flight{},
		joinable: map[mergeKey]*Flight{},
		inFlight: map[*Flight]bool{},
	}
	t.mu.Lock() // the timer's function may run before the field is set
	defer t.mu.Unlock()
	t.expiry = time.AfterFunc(t.options.Retention, t.expire)
	return t
}

// Execute starts a flight for r, or joins an equal one. ctx is that of the request alone: the flight
// survives it. Errors: those of action.Decode; *action.UnsupportedError when no executor fulfils the
// platform; ErrFull; ErrClosed.
func (t *Table) Execute(ctx context.Context, r Request) (*Flight, error) {
	limits := t.options.Limits
	limits.WholeRoot = limits.WholeRoot || slices.Contains(t.options.WholeRootInstances, r.Instance)
	a, err := action.Decode(ctx, t.options.Blobs, r.Action, limits)
	if err != nil {
		return nil, err
	}
	a.Instance = r.Instance
	if r.Meta.Target == "" {
		r.Meta.Target = a.Element()
	}
	if err := t.options.Match(a.Platform); err != nil {
		err = unsupported(err)
		t.options.Ended(Ending{Action: a, Request: r, Created: time.Now(), Refused: true, Response: &repb.ExecuteResponse{Status: t.status(err)}})
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	if f := t.join(a, r); f != nil {
		return f, nil
	}
	if len(t.inFlight) >= t.options.MaxFlights {
		return nil, fmt.Errorf("execute %s: %w", r.Action.Short(), ErrFull)
	}
	return t.start(a, r), nil
}

// join finds a flight that answers r as well. The caller holds t.mu.
func (t *Table) join(a *action.Action, r Request) *Flight {
	if a.DoNotCache {
		return nil
	}
	f := t.joinable[mergeKey{r.Action, r.Instance, r.SkipCacheLookup}]
	if f == nil {
		f = t.joinable[mergeKey{r.Action, r.Instance, true}]
	}
	if f != nil && !f.touch() {
		return nil // it is being cancelled
	}
	return f
}

// start makes a flight and its goroutine, which ends by finish. The caller holds t.mu.
func (t *Table) start(a *action.Action, r Request) *Flight {
	ctx, cancel := context.WithCancelCause(context.Background())
	f := &Flight{
		name: newName(), action: a, request: r, cancel: cancel, abandonAfter: t.options.Abandon,
		created: time.Now(), lastWatched: time.Now(), changed: make(chan struct{}),
		state: State{Version: 1, Stage: repb.ExecutionStage_CACHE_CHECK},
	}
	f.mu.Lock() // the timer's function may run before the field is set
	f.abandon = time.AfterFunc(t.options.Abandon, f.checkAbandoned)
	f.mu.Unlock()
	t.byName[f.name] = f
	if !a.DoNotCache {
		t.joinable[f.key()] = f
	}
	t.inFlight[f] = true
	t.running.Go(func() {
		response := t.run(ctx, f)
		t.finish(f, response)
	})
	return f
}

// finish makes the response visible and moves f from those in flight to the retained ones. It leaves the
// merge table first: whoever asks from now on gets a flight of its own, or the cache's answer.
func (t *Table) finish(f *Flight, response *repb.ExecuteResponse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.joinable[f.key()] == f {
		delete(t.joinable, f.key())
	}
	delete(t.inFlight, f)
	f.complete(response)
	if _, known := t.byName[f.name]; known { // not deleted meanwhile
		t.finished = append(t.finished, f)
		t.trim(time.Now())
	}
}

// trim forgets finished flights that are too many or too old. The caller holds t.mu.
func (t *Table) trim(now time.Time) {
	old := 0
	for old < len(t.finished) {
		f := t.finished[old]
		if len(t.finished)-old <= t.options.Retained && now.Sub(f.ended()) < t.options.Retention {
			break
		}
		delete(t.byName, f.name)
		old++
	}
	t.finished = slices.Delete(t.finished, 0, old)
	if len(t.finished) > 0 && !t.closed {
		t.expiry.Reset(t.options.Retention - now.Sub(t.finished[0].ended()))
	}
}

// expire runs on the timer that trim sets for the oldest finished flight.
func (t *Table) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trim(time.Now())
}

// Find gives the flight of a name while it runs and as long as it is retained. Looking a flight up
// counts as watching it.
func (t *Table) Find(name string) (*Flight, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, found := t.byName[name]
	if found {
		f.touch()
	}
	return f, found
}

// List gives all flights, running and retained, the oldest first. It does not count as watching.
func (t *Table) List() []*Flight {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Flight, 0, len(t.byName))
	for _, f := range t.byName {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *Flight) int {
		if c := a.created.Compare(b.created); c != 0 {
			return c
		}
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return all
}

// Forget makes a name unknown and reports whether it was known. A running flight goes on for those who
// wait for it already.
func (t *Table) Forget(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, found := t.byName[name]
	if !found {
		return false
	}
	delete(t.byName, name)
	if at := slices.Index(t.finished, f); at >= 0 {
		t.finished = slices.Delete(t.finished, at, at+1)
	}
	return true
}

// Close refuses new flights, cancels those that run and waits until all have ended. States stay readable
// by those who hold a Flight.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	t.expiry.Stop()
	for f := range t.inFlight {
		f.end(ErrClosed)
	}
	t.mu.Unlock()
	t.running.Wait()
}

// newName makes a name that nobody can guess.
func newName() string {
	var random [16]byte
	rand.Read(random[:]) // never fails
	return NamePrefix + hex.EncodeToString(random[:])
}
