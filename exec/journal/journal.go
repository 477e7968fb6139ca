package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
)

// maxPending bounds the facts that wait for the writer.
const maxPending = 4096

// ErrClosed is what a closed journal answers.
var ErrClosed = errors.New("journal is closed")

// Options of a Journal; zero values stand for the defaults given.
type Options struct {
	Dir        string                                // its own; must be set
	MaxEntries int                                   // default 50,000
	MaxBytes   int64                                 // on disk; default 64 MiB
	Name       func(peer.ID) string                  // what people call a peer; default its short id
	Learned    func(mnemonic string, s place.Sample) // told by Open what was learned from each action, the oldest first; default: nobody
	OnError    func(error)                           // told when entries cannot be written, once until they can; default: nobody
}

func (o Options) withDefaults() Options {
	if o.MaxEntries <= 0 {
		o.MaxEntries = 50_000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 20
	}
	if o.Name == nil {
		o.Name = peer.ID.Short
	}
	if o.Learned == nil {
		o.Learned = func(string, place.Sample) {}
	}
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	return o
}

// Hit is a known result that a client was given when it asked for it.
type Hit struct {
	Action digest.Digest
	From   string // the member that had it; "": it was here
	Result *repb.ActionResult
	Meta   flight.Meta
}

// Journal keeps entries. Safe for concurrent use. Make it with Open, end it with Close.
type Journal struct {
	options Options
	pending chan fact
	lost    atomic.Int64
	writing sync.WaitGroup     // the writer
	spelled map[peer.ID]string // the writer's alone

	closing sync.RWMutex // held for reading while a fact is put into pending
	closed  bool         // guarded by closing

	mu    sync.Mutex // guards index and log
	index index
	log   *log
}

// fact is something for the writer: exactly one field is set.
type fact struct {
	entry  func() *journalv1.Entry // makes it, in the writer's time
	remark *journalv1.Remark
	done   chan struct{} // closed when everything before is written
}

// Open opens or makes the journal in o.Dir.
func Open(o Options) (*Journal, error) {
	o = o.withDefaults()
	j := &Journal{options: o, pending: make(chan fact, maxPending), index: index{most: o.MaxEntries}}
	var err error
	if j.log, err = openLog(o.Dir, o.MaxBytes, j.known); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j.writing.Go(j.write)
	return j, nil
}

// known takes in a record of an earlier process.
func (j *Journal) known(p position, r *journalv1.Record) {
	j.index.add(p)
	if need := r.GetEntry().GetPlacing().GetNeed(); need != nil {
		j.options.Learned(r.Entry.Mnemonic, sampleOf(need))
	}
}

// Close writes what is pending and ends.
func (j *Journal) Close() error {
	j.closing.Lock()
	already := j.closed
	j.closed = true
	j.closing.Unlock()
	if already {
		return nil
	}
	close(j.pending)
	j.writing.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.close()
}

// Lost is how many facts were left out since Open, because the writer or the disk could not take them.
func (j *Journal) Lost() int64 { return j.lost.Load() }

// Ended notes a flight that is over. It never waits.
func (j *Journal) Ended(e flight.Ending) {
	at := time.Now()
	j.put(fact{entry: func() *journalv1.Entry { return j.entryOf(e, at) }})
}

// Hit notes a known result that a client was given. It never waits.
func (j *Journal) Hit(h Hit) {
	at := time.Now()
	j.put(fact{entry: func() *journalv1.Entry { return hitEntry(h, at) }})
}

// Remark notes what became known of an action otherwise than by its flight, as a rule after that was over. It never waits.
func (j *Journal) Remark(action digest.Digest, text string) {
	j.put(fact{remark: &journalv1.Remark{Action: action.String(), Text: clip(text), At: timestamppb.Now()}})
}

// put hands a fact to the writer, or counts it as lost.
func (j *Journal) put(f fact) {
	j.closing.RLock()
	defer j.closing.RUnlock()
	if j.closed {
		return
	}
	select {
	case j.pending <- f:
	default:
		j.lost.Add(1)
	}
}

// Flush waits until everything noted so far can be found.
func (j *Journal) Flush(ctx context.Context) error {
	f := fact{done: make(chan struct{})}
	if err := j.ask(ctx, f); err != nil {
		return err
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask is put for a caller that may wait.
func (j *Journal) ask(ctx context.Context, f fact) error {
	j.closing.RLock()
	defer j.closing.RUnlock()
	if j.closed {
		return ErrClosed
	}
	select {
	case j.pending <- f:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// maxBatch is how many facts are written with one call.
const maxBatch = 256

// write writes facts until Close, as many at a time as there are.
func (j *Journal) write() {
	failed := false
	for f := range j.pending {
		batch := []fact{f}
		for len(batch) < maxBatch && len(j.pending) > 0 {
			batch = append(batch, <-j.pending)
		}
		lost, tried, err := j.append(batch)
		j.lost.Add(int64(lost))
		if err != nil && !failed {
			j.options.OnError(fmt.Errorf("write journal: %w", err))
		}
		if tried { // a flush alone says nothing about the disk
			failed = err != nil
		}
		for _, f := range batch {
			if f.done != nil {
				close(f.done)
			}
		}
	}
}

// append writes a batch and makes it known; lost is how many facts of it could not be kept, tried whether there was
// anything to write.
func (j *Journal) append(batch []fact) (lost int, tried bool, err error) {
	records := make([]*journalv1.Record, 0, len(batch))
	for _, f := range batch {
		switch {
		case f.entry != nil:
			if e := f.safely(); e != nil {
				records = append(records, &journalv1.Record{Entry: e})
			} else {
				lost++
			}
		case f.remark != nil:
			records = append(records, &journalv1.Record{Remark: f.remark})
		}
	}
	if len(records) == 0 {
		return lost, false, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	added, err := j.log.append(records, j.index.next())
	for _, p := range added {
		j.index.add(p)
	}
	j.index.drop(j.log.trim(j.index.oldest()))
	return lost + len(records) - len(added), true, err
}

// safely makes the entry. What a client or a peer sent must not end the writer: nil, when it cannot be told.
func (f fact) safely() (e *journalv1.Entry) {
	defer func() {
		if recover() != nil {
			e = nil
		}
	}()
	return f.entry()
}

// Query says which entry is wanted.
type Query struct {
	Subject string              // begin of an action's hash, or a target; "": the last entry
	Label   func(string) string // gives one spelling to targets that mean the same; nil: they are compared as they are
}

// Found is what a Query found.
type Found struct {
	Entry *journalv1.Entry
	Also  []*journalv1.Entry // other actions of the same target and invocation, newest first
	More  int                // of those, that were left out
}

// maxAlso is how many other actions of a target are given.
const maxAlso = 20

// ErrUnknown says that the journal has no such entry.
var ErrUnknown = errors.New("not in the journal")

// Find gives the newest entry for a query. Of a target, an action that was run comes before one whose result was known.
// Errors: ErrUnknown, or what the disk failed with.
func (j *Journal) Find(q Query) (*Found, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	main, also := j.index.find(q)
	if main < 0 {
		return nil, ErrUnknown
	}
	e, err := j.read(main)
	if err != nil {
		return nil, err
	}
	f := &Found{Entry: e, More: max(0, len(also)-maxAlso)}
	for _, at := range also[:min(len(also), maxAlso)] {
		if one, err := j.read(at); err == nil { // what cannot be read is only context
			f.Also = append(f.Also, one)
		}
	}
	return f, nil
}

// Targets gives every target that an entry names once, the latest first.
func (j *Journal) Targets() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.index.targets()
}

// Named gives for each action, as hash/size, the newest entry that names it by mnemonic, target or words; nil where none is known.
// Errors: what the disk failed with.
func (j *Journal) Named(actions ...string) ([]*journalv1.Entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]*journalv1.Entry, len(actions))
	for i, at := range j.index.named(actions) {
		if at < 0 {
			continue
		}
		r, err := j.log.read(j.index.all[at])
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		all[i] = r.GetEntry()
	}
	return all, nil
}

// Before gives the last entry before e with the same subject; nil when there is none.
func (j *Journal) Before(e *journalv1.Entry) (*journalv1.Entry, error) {
	return j.before(e, func(p *position) bool { return p.subject == e.Subject })
}

// Last tells how the same action went before e; nil when it is not known to have been asked for.
func (j *Journal) Last(e *journalv1.Entry) (*journalv1.Entry, error) {
	action := actionSum(e.Action)
	return j.before(e, func(p *position) bool { return p.action == action })
}

// before gives the last such entry before e; nil when there is none.
func (j *Journal) before(e *journalv1.Entry, such func(*position) bool) (*journalv1.Entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := j.index.before(e.Sequence, such)
	if at < 0 {
		return nil, nil
	}
	return j.read(at)
}

// read reads one entry and the remarks about it: those that were made since its work began, for what is compared may be known before
// the work is over. The caller holds j.mu.
func (j *Journal) read(at int) (*journalv1.Entry, error) {
	r, err := j.log.read(j.index.all[at])
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	e := r.GetEntry()
	if e == nil {
		return nil, fmt.Errorf("read journal: %w", errDamaged)
	}
	begun := e.At.AsTime().Add(-e.Timeline.GetTotal().AsDuration())
	for _, near := range j.index.remarks(at) {
		r, err := j.log.read(j.index.all[near])
		if err == nil && r.GetRemark().GetAction() == e.Action && (near > at || r.Remark.At.AsTime().After(begun)) {
			e.Remarks = append(e.Remarks, proto.CloneOf(r.Remark))
		}
	}
	return e, nil
}
