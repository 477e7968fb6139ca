package flight

import (
	"context"
	"errors"
	"fmt"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/slot"
)

var (
	// ErrNotCached is what Results.Get says when it knows no result of an action.
	ErrNotCached = errors.New("action result is not cached")
	// ErrFull says that no more flights are taken for the moment.
	ErrFull = errors.New("too many executions in flight")
	// ErrClosed says that the table was closed.
	ErrClosed = errors.New("executions are closed")
	// ErrCancelled ends a flight that somebody cancelled. It wraps context.Canceled.
	ErrCancelled = fmt.Errorf("execution was cancelled: %w", context.Canceled)
	// ErrMerged ends a run because another node's of the same action began before. The flight goes on.
	ErrMerged = errors.New("another node began it before")
	// ErrAbandoned ends a flight that nobody watched any more. It wraps context.Canceled.
	ErrAbandoned = fmt.Errorf("execution was abandoned by its client: %w", context.Canceled)
)

// PanicError ends a flight whose executor panicked: a defect of ours, reported and survived.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

func (e *PanicError) Error() string { return fmt.Sprintf("executor panicked: %v", e.Value) }

// Meta is what a client says about itself and its action; all of it is optional, none of it is trusted. The target of one that
// names none is the element that its action builds, if it does.
type Meta struct {
	Tool, Invocation, ActionID, Mnemonic, Target string
}

// Request asks for the execution of an action.
type Request struct {
	Action          digest.Digest
	Instance        string
	SkipCacheLookup bool
	Priority        int32 // lower is more urgent, 0 is the default
	Meta            Meta
}

// Outcome is what an executor brings back from a run.
type Outcome struct {
	Result     *repb.ActionResult // owned by the flight from now on
	Message    string             // for a person: where it ran, why it ended as it did
	ServerLogs map[string]*repb.LogFile
	Placement  *place.Trace // how it found its place; nil: by itself
	Merged     string       // the node whose run was waited for instead; "": none
	Signed     bool         // another node ran it, and its signature is kept: this one has nothing to sign
}

// Ending is a flight that is over, for whoever keeps a journal.
type Ending struct {
	Action    *action.Action
	Request   Request
	Created   time.Time
	Refused   bool // no executor fulfils its platform: it never flew
	Lookup    Lookup
	Response  *repb.ExecuteResponse // must not be changed
	Placement *place.Trace          // nil: it was cached or merged, or ran where there is no choice
	Merged    string                // the node whose run was waited for instead; "": none
	Vain      error                 // why waiting for another node's run brought nothing the last time it did; nil: it never did
}

// Lookup is what asking for a known result brought.
type Lookup struct {
	Asked bool   // false: the client or the action does not want it
	From  string // the peer that had the result; "": it was here, or there is none
	Err   error  // why there is none
}

// Observer is told how a run goes on. Its methods may be called from any goroutine, also after the run.
type Observer interface {
	// Output names the files that the running action writes its stdout and stderr to, before it starts;
	// they exist already. What follows them has a descriptor of its own: they may be removed after the run.
	Output(stdoutPath, stderrPath string)
	// Metadata tells what is known so far of when and where the action runs. m must not change any more.
	Metadata(m *repb.ExecutedActionMetadata)
}

// Executor runs an action that was given room to run. It returns only when nothing of the action runs
// any more, soon after ctx ends. A finished action, with whatever exit code, is an Outcome and no error. An error may come
// with an Outcome that holds what there is, such as the stdout of an action that ran out of time.
type Executor interface {
	Execute(ctx context.Context, a *action.Action, o Observer) (*Outcome, error)
}

// Placer finds out where an action is to run, and room for it there.
type Placer interface {
	// Place waits until there is room and gives who runs the action. release is called once, after the
	// run; it is not nil unless err is set.
	Place(ctx context.Context, a *action.Action, r Request) (e Executor, release func(), err error)
}

// Results is a cache of action results. Which results it shares with whom is its own affair.
type Results interface {
	// Get gives a complete result, or an error that wraps ErrNotCached. from names the peer that had it; "" when it was here.
	Get(ctx context.Context, a *action.Action, about Meta) (r *repb.ActionResult, from string, err error)
	// Put replaces the result of an action. signed: another node answers for it (Outcome.Signed).
	Put(ctx context.Context, a *action.Action, r *repb.ActionResult, signed bool) error
}

// Slots gives room to run: exec/slot's Pool.
type Slots interface {
	Acquire(ctx context.Context, r slot.Request) (*slot.Slot, error)
}

// Follower makes a growing file readable by name while it grows, until finish is called. An empty name says that it
// cannot; finish is never nil.
type Follower interface {
	Follow(path string) (name string, finish func())
}

// State is a flight at one moment. Its messages are shared and must not be changed.
type State struct {
	Version                    uint64 // grows with every change, from 1
	Stage                      repb.ExecutionStage_Value
	Response                   *repb.ExecuteResponse // set exactly when Stage is COMPLETED
	StdoutStream, StderrStream string                // names to read the output by while it is written; "" for none
	Metadata                   *repb.ExecutedActionMetadata
}

// Done reports whether the flight has ended.
func (s State) Done() bool { return s.Response != nil }
