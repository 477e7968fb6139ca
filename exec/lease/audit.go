package lease

import (
	"context"
	"errors"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Auditor is told of results that can be compared, and asked which results are to be made a second time. Its methods must be
// quick.
type Auditor interface {
	// Draw reports whether a result of a peer is one of those to be made again, here, to be compared.
	Draw(from peer.ID) bool
	// Suits reports whether an action may be made again here, and now.
	Suits(a *action.Action) bool
	// Compare gets two results of one action.
	Compare(a *action.Action, first, second Made)
}

// Made is a result and who made it.
type Made struct {
	By     peer.ID
	Result *repb.ActionResult
}

// Bounds of making results again.
const (
	maxSuspects = 64              // that wait; what comes while so many do is believed
	auditTries  = 3               // of one whose slot was wanted
	auditQuiet  = time.Second     // without work before one is made again
	auditFetch  = 2 * time.Minute // for its inputs
)

// suspect is a result that waits to be made again.
type suspect struct {
	Made
	request   flight.Request
	wholeRoot bool // the action's input root is a root file system
}

// Found tells of a result that a peer made and that was found instead of being made under a lease of this Initiator. When the
// Auditor draws it, it is made again here once nothing else is to be done. wholeRoot says that it was made in a root file system
// of its own. Found returns at once.
func (i *Initiator) Found(d digest.Digest, wholeRoot bool, m Made) {
	i.suspect(suspect{Made: m, request: flight.Request{Action: d}, wholeRoot: wholeRoot})
}

// suspect queues a result that the Auditor draws.
func (i *Initiator) suspect(s suspect) {
	if s.By == i.options.Self || i.options.Auditor == nil || !i.options.Auditor.Draw(s.By) {
		return
	}
	s.request.Priority, s.request.SkipCacheLookup = 1<<30, true // behind everything a person waits for
	select {
	case i.suspects <- s:
	default:
	}
}

// audit makes suspects again, one at a time, until Close.
func (i *Initiator) audit() {
	for {
		select {
		case <-i.ctx.Done():
			return
		case s := <-i.suspects:
			for range auditTries {
				if !i.quiet() || i.makeAgain(s) {
					break
				}
			}
		}
	}
}

// quiet waits until there has been no work for a while; false when the Initiator ends before.
func (i *Initiator) quiet() bool {
	work := func() (last uint64, none bool) {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.sequence, len(i.works) == 0
	}
	for before, _ := work(); ; {
		select {
		case <-i.ctx.Done():
			return false
		case <-time.After(auditQuiet):
		}
		last, none := work()
		if none && last == before {
			return true
		}
		before = last
	}
}

// makeAgain makes a suspect again; false when its slot was wanted before it was done. One that does not suit, or whose inputs
// cannot be had, is let go.
func (i *Initiator) makeAgain(s suspect) bool {
	a, err := i.suspected(s)
	if err != nil {
		return true
	}
	w := i.submit(i.ctx, a, s.request, s.Made)
	if w == nil {
		return true
	}
	w.watch(silent{})
	<-w.done // at the latest with Close
	w.here.Wait()
	return !errors.Is(w.err, errYielded)
}

// errUnsuited lets a suspect go.
var errUnsuited = errors.New("it is not made again here")

// suspected has everything here that making a suspect again takes.
func (i *Initiator) suspected(s suspect) (*action.Action, error) {
	ctx, cancel := context.WithTimeout(i.ctx, auditFetch)
	defer cancel()
	limits := action.Limits{MaxTimeout: i.options.MaxTimeout, WholeRoot: s.wholeRoot}
	a, err := decode(ctx, from{i.options.Blobs, i.options.Content, s.By}, s.request.Action, limits)
	if err != nil {
		return nil, err
	}
	if a.DoNotCache || !i.options.Auditor.Suits(a) {
		return nil, errUnsuited
	}
	_, err = i.options.Content.Inputs(ctx, s.By, a)
	return a, err
}

// errYielded ends a work that has made room.
var errYielded = errors.New("its slot is wanted")

// yield ends what is made again when anything else waits for room. The caller holds i.mu and carries out what the core decides.
func (i *Initiator) yield(now time.Time) bool {
	w := i.auditing
	if w == nil || !w.placed || i.core.Waiting() == 0 {
		return false
	}
	i.core.Withdraw(now, w.id)
	i.end(w, nil, errYielded)
	return true
}

// compare gives the auditor what can be compared, and has results made again that it draws.
func (i *Initiator) compare(t *attempt, outcome *flight.Outcome, err error, current bool) {
	w, auditor := t.work, i.options.Auditor
	if auditor == nil || err != nil || w.action.DoNotCache {
		return
	}
	made := Made{By: t.Peer, Result: outcome.Result}
	counted, ended := i.counted(w)
	switch {
	case w.audits():
		auditor.Compare(w.action, w.audit, made)
	case !current && ended:
		auditor.Compare(w.action, counted, made)
	case current:
		i.suspect(suspect{Made: made, request: w.request, wholeRoot: w.action.WholeRoot})
	}
}

// counted is the result that counted; false when there is none, or none yet: an attempt that was given up may bring its
// result while the next one runs.
func (i *Initiator) counted(w *work) (Made, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !w.ended || w.err != nil || w.outcome == nil || w.outcome.Result == nil {
		return Made{}, false
	}
	for _, a := range w.trace.Attempts {
		if a.Won {
			return Made{By: a.Peer, Result: w.outcome.Result}, true
		}
	}
	return Made{}, false
}

// silent is the observer of work that nobody watches.
type silent struct{}

func (silent) Output(string, string)                 {}
func (silent) Metadata(*repb.ExecutedActionMetadata) {}
