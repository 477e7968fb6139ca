package bridge

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
	bridgev1 "github.com/buildmesh/buildmesh/proto/bridge/v1"
)

// Bounds of what is remembered.
const (
	defaultTargetBytes = 64 << 20
	maxMade            = 4096    // actions of one target; those noted first go
	maxPart            = 32      // one target may take this part of all bytes
	maxOutput          = 4096    // bytes of an output path
	maxKnown           = 1 << 16 // results known to be noted, in memory
	maxPending         = 1 << 14 // results not written yet; more are not noted
)

// Targets remembers which actions made a target. Safe for concurrent use; one goroutine, which ends in
// Close.
type Targets struct {
	log     *record.Log
	most    int // bytes of one target
	onError func(error)
	writing sync.WaitGroup // the writer

	disk sync.Mutex // held while a target is read, changed and written

	mu      sync.Mutex // guards everything below; taken inside disk or alone
	changed sync.Cond  // pending, written or closed changed
	known   map[place]digest.Digest
	pending []note
	noted   uint64 // so many were put into pending
	written uint64 // so many of them are done with, first come first served
	closed  bool
}

// place is what one action of a target makes; another action that makes the same takes its place.
type place struct{ label, mnemonic, output string }

type note struct {
	place
	action digest.Digest
	at     time.Time
}

// TargetOptions shape Targets; zero values mean the defaults told at each field.
type TargetOptions struct {
	MaxBytes int64       // on disk; default 64 MiB
	OnError  func(error) // told when notes could not be written; default: nobody
}

// OpenTargets opens or makes the targets remembered in dir.
func OpenTargets(dir string, o TargetOptions) (*Targets, error) {
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	o.MaxBytes = cmp.Or(o.MaxBytes, defaultTargetBytes)
	log, err := record.Open(dir, record.Options{MaxBytes: o.MaxBytes})
	if err != nil {
		return nil, fmt.Errorf("open targets: %w", err)
	}
	t := &Targets{log: log, most: int(o.MaxBytes / maxPart), onError: o.OnError, known: map[place]digest.Digest{}}
	t.changed.L = &t.mu
	t.writing.Go(t.write)
	return t, nil
}

// Close writes what was noted and ends.
func (t *Targets) Close() error {
	t.mu.Lock()
	already := t.closed
	t.closed = true
	t.changed.Broadcast()
	t.mu.Unlock()
	if already {
		return nil
	}
	t.writing.Wait()
	return t.log.Close()
}

// Note remembers that the result r of action is part of a target, as a client said. It never waits.
func (t *Targets) Note(target, mnemonic string, action digest.Digest, r *repb.ActionResult) {
	output := firstOutput(r)
	if target == "" || output == "" || len(output) > maxOutput || r.GetExitCode() != 0 {
		return
	}
	label, err := Label(target)
	if err != nil {
		return // a client may call its targets as it likes
	}
	p := place{label, mnemonic, output}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[p] == action || t.closed || len(t.pending) == maxPending {
		return
	}
	if len(t.known) == maxKnown {
		clear(t.known) // they are noted once more
	}
	t.known[p] = action
	t.pending = append(t.pending, note{p, action, time.Now()})
	t.noted++
	t.changed.Broadcast()
}

// firstOutput is the least output path of a result, "" when it has none or one that is not below the
// directory the action ran in.
func firstOutput(r *repb.ActionResult) string {
	first := ""
	for o := range outputs(r) {
		if o.path == "" {
			return ""
		}
		if first == "" || o.path < first {
			first = o.path
		}
	}
	return first
}

// write writes notes until Close.
func (t *Targets) write() {
	t.mu.Lock()
	defer t.mu.Unlock()
	failed := false
	for {
		for len(t.pending) == 0 && !t.closed {
			t.changed.Wait()
		}
		if len(t.pending) == 0 {
			return
		}
		notes := t.pending
		t.pending = nil
		t.mu.Unlock()
		err := t.store(notes)
		if err != nil && !failed { // once, until it works again
			t.onError(fmt.Errorf("note results of targets: %w", err))
		}
		failed = err != nil
		t.mu.Lock()
		if err != nil {
			clear(t.known)
		}
		t.written += uint64(len(notes))
		t.changed.Broadcast()
	}
}

// store adds notes to their targets.
func (t *Targets) store(notes []note) error {
	type subject struct {
		label string
		fn    digest.Function
	}
	bySubject := map[subject][]note{}
	for _, n := range notes {
		s := subject{n.label, n.action.Function()}
		bySubject[s] = append(bySubject[s], n)
	}
	t.disk.Lock()
	defer t.disk.Unlock()
	var errs []error
	for s, notes := range bySubject {
		errs = append(errs, t.change(s.label, s.fn, func(made []*bridgev1.Made) []*bridgev1.Made {
			return add(made, notes)
		}))
	}
	return errors.Join(errs...)
}

// add puts notes behind what was made before, each in place of what it replaces.
func add(made []*bridgev1.Made, notes []note) []*bridgev1.Made {
	fresh := make(map[[2]string]int, len(notes))
	for i, n := range notes {
		fresh[[2]string{n.mnemonic, n.output}] = i // the last one
	}
	made = slices.DeleteFunc(made, func(m *bridgev1.Made) bool {
		_, replaced := fresh[[2]string{m.Mnemonic, m.Output}]
		return replaced
	})
	for i, n := range notes {
		if fresh[[2]string{n.mnemonic, n.output}] != i {
			continue
		}
		hash := n.action.Hash()
		made = append(made, &bridgev1.Made{
			Mnemonic: n.mnemonic, Output: n.output, Action: hash[:], ActionSize: n.action.Size(), Noted: timestamppb.New(n.at),
		})
	}
	return made[max(0, len(made)-maxMade):]
}

// change reads what is known of a target, changes it and writes it. disk is held.
func (t *Targets) change(label string, fn digest.Function, edit func([]*bridgev1.Made) []*bridgev1.Made) error {
	made, err := t.read(label, fn)
	if err != nil {
		return err
	}
	m := &bridgev1.Target{Label: label, Made: edit(made)}
	for len(m.Made) > 0 && proto.Size(m) > t.most {
		m.Made = m.Made[(len(m.Made)+7)/8:]
	}
	value, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return t.log.Put([]record.Item{{Key: targetKey(label, fn), Value: value}})
}

// read gives what is stored of a target; damaged records are gone.
func (t *Targets) read(label string, fn digest.Function) ([]*bridgev1.Made, error) {
	values, err := t.log.Get([]record.Key{targetKey(label, fn)})
	if errors.Is(err, record.ErrCorrupt) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m bridgev1.Target
	if proto.Unmarshal(values[0].Data, &m) != nil || m.Label != label {
		return nil, nil
	}
	return m.Made, nil
}

// made is one action of a target.
type made struct {
	place
	action digest.Digest
}

// find gives the actions of a target, the last noted last; what was noted before the call is among them.
func (t *Targets) find(label string, fn digest.Function) ([]made, error) {
	t.mu.Lock()
	for noted := t.noted; t.written < noted; {
		t.changed.Wait()
	}
	t.mu.Unlock()
	stored, err := t.read(label, fn)
	if err != nil {
		return nil, err
	}
	var all []made
	for _, m := range stored {
		if len(m.Action) == digest.HashSize && m.ActionSize >= 0 {
			d := digest.New(fn, [digest.HashSize]byte(m.Action), m.ActionSize)
			all = append(all, made{place{label, m.Mnemonic, m.Output}, d})
		}
	}
	return all, nil
}

// forget removes actions of one target whose results are gone.
func (t *Targets) forget(gone []made) error {
	t.disk.Lock()
	defer t.disk.Unlock()
	t.mu.Lock()
	for _, g := range gone {
		delete(t.known, g.place)
	}
	t.mu.Unlock()
	first := gone[0]
	return t.change(first.label, first.action.Function(), func(all []*bridgev1.Made) []*bridgev1.Made {
		return slices.DeleteFunc(all, func(m *bridgev1.Made) bool {
			return slices.ContainsFunc(gone, func(g made) bool {
				hash := g.action.Hash()
				return m.Mnemonic == g.mnemonic && m.Output == g.output && slices.Equal(m.Action, hash[:])
			})
		})
	})
}

// targetKey is what a target is stored under.
func targetKey(label string, fn digest.Function) (k record.Key) {
	sum := sha256.Sum256([]byte(fn.String() + "\x00" + label))
	copy(k[:], sum[:])
	k[record.KeySize-1] = 't'
	return k
}

// Results is where the results of actions are: complete ones only.
type Results interface {
	Get(ctx context.Context, action digest.Digest) (*repb.ActionResult, error)
}

// GoneError says that results of a target are no longer complete.
type GoneError struct {
	Label   string
	Outputs []string // the first one of each action
}

func (e *GoneError) Error() string {
	shown := e.Outputs[:min(len(e.Outputs), 3)]
	return fmt.Sprintf("%d results of %s are no longer complete (%s): build it again", len(e.Outputs), e.Label, strings.Join(shown, ", "))
}
