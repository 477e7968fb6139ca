package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/collect"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/image"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/exec/stage"
	"github.com/buildmesh/buildmesh/exec/trash"
)

// ErrClosed is returned by a Runner after Close.
var ErrClosed = errors.New("run: runner is closed")

// Blobs is what running needs of the blob store, beside what collecting needs.
type Blobs interface {
	collect.Blobs
	// GetBatch returns contents in order, nil for a blob that is missing.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
}

// Stager lays input trees out: exec/stage's Cache.
type Stager interface {
	Stage(ctx context.Context, t *tree.Tree, modes stage.Modes) (*stage.Root, error)
}

// Box runs commands in isolation: exec/sandbox's Box.
type Box interface {
	Run(ctx context.Context, spec sandbox.Spec) (sandbox.Result, error)
	Tier() sandbox.Tier
}

// Options of a Runner; zero values are the defaults given.
type Options struct {
	Dir     string // for scratch directories, on the file system of the blob store; required
	Worker  string // name of this peer in results
	Network bool   // the owner allows actions a network when they ask for it
	Images  Images // nil: no actions are run in container images

	Timeout   time.Duration // of an action that asks for none: 24 h
	Memory    int64         // bytes an action may use that asks for none: no limit
	MaxMemory int64         // bytes for the second try of such an action: four times Memory
	Disk      int64         // bytes an action may write: 64 GiB
	Output    int64         // bytes of stdout and stderr together: 1 GiB
	Processes int           // 0 leaves it to the sandbox

	Collect    collect.Limits
	Tree       tree.Limits // zero: tree.DefaultLimits
	KnownTrees int64       // nodes of the input trees kept in memory: 1,000,000
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 24 * time.Hour
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = 4 * o.Memory
	}
	if o.Disk <= 0 {
		o.Disk = 64 << 30
	}
	if o.Output <= 0 {
		o.Output = 1 << 30
	}
	if o.Tree == (tree.Limits{}) {
		o.Tree = tree.DefaultLimits()
	}
	if o.KnownTrees <= 0 {
		o.KnownTrees = 1_000_000
	}
	return o
}

// Runner runs actions. It is safe for concurrent use; how many run at a time is its callers' affair.
type Runner struct {
	blobs   Blobs
	stager  Stager
	box     Box
	opt     Options
	trees   *trees
	trash   *trash.Bin
	retries chan struct{} // held while an action runs with more memory than was reserved for it

	sequence atomic.Uint64
	mu       sync.Mutex // guards closed, so that no run begins after Close began to wait
	closed   bool
	runs     sync.WaitGroup
}

// Where scratch directories are, below Options.Dir.
const (
	scratchDir = "scratch"
	trashDir   = "trash"
)

// Open prepares Options.Dir and throws away what an earlier process left there. The caller makes sure
// that no second process uses it.
func Open(blobs Blobs, stager Stager, box Box, opt Options) (*Runner, error) {
	opt = opt.withDefaults()
	r := &Runner{blobs: blobs, stager: stager, box: box, opt: opt, trees: newTrees(opt.KnownTrees), retries: make(chan struct{}, 1)}
	scratch := filepath.Join(opt.Dir, scratchDir)
	if err := os.MkdirAll(opt.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("open runner: %w", err)
	}
	var err error
	if r.trash, err = trash.Open(filepath.Join(opt.Dir, trashDir)); err != nil {
		return nil, fmt.Errorf("open runner: %w", err)
	}
	if err = r.trash.Throw(scratch); err == nil {
		err = os.Mkdir(scratch, 0o755)
	}
	if err != nil {
		r.trash.Close()
		return nil, fmt.Errorf("open runner: %w", err)
	}
	spread(scratch)
	return r, nil
}

// Close refuses new actions, waits for those that run and for the removal under way. Cancelling the
// runs is their callers' affair.
func (r *Runner) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.runs.Wait()
	r.trash.Close()
	return nil
}

func (r *Runner) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.runs.Add(1)
	return nil
}

// Execute implements flight.Executor.
func (r *Runner) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	return r.Storing(r.blobs).Execute(ctx, a, o)
}

// Storing is the Runner with another way into the store for what actions write.
func (r *Runner) Storing(outputs collect.Blobs) flight.Executor {
	return variant{runner: r, outputs: outputs}
}

// Guests is the Runner for actions of others: they get what processor time nobody else wants, and stand
// still when the sandbox freezes what is in the background. What they write goes to outputs.
func (r *Runner) Guests(outputs collect.Blobs) flight.Executor {
	return variant{runner: r, outputs: outputs, guest: true}
}

// variant is a Runner for some of its actions.
type variant struct {
	runner  *Runner
	outputs collect.Blobs // where what they write goes
	guest   bool          // they are actions of others
}

// Execute implements flight.Executor.
func (v variant) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	return v.runner.execute(ctx, &execution{runner: v.runner, action: a, observer: o, into: v.outputs, guest: v.guest})
}

func (r *Runner) execute(ctx context.Context, e *execution) (*flight.Outcome, error) {
	a := e.action
	if err := r.begin(); err != nil {
		return nil, err
	}
	defer r.runs.Done()
	if a.Platform.Network && !r.opt.Network {
		return nil, &action.UnsupportedError{Property: "network", Err: errors.New("the owner of this machine does not allow it")}
	}
	e.meta = &repb.ExecutedActionMetadata{Worker: r.opt.Worker, WorkerStartTimestamp: timestamppb.Now()}
	defer e.cleanUp()
	outcome, err := e.run(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("run %s: %w", a.Digest.Short(), context.Cause(ctx))
	}
	if err != nil {
		return outcome, fmt.Errorf("run %s: %w", a.Digest.Short(), err)
	}
	return outcome, nil
}

// execution is one action's run. It belongs to one goroutine.
type execution struct {
	runner   *Runner
	action   *action.Action
	observer flight.Observer
	into     collect.Blobs // where what it writes goes
	guest    bool          // it is another peer's action
	meta     *repb.ExecutedActionMetadata

	tree               *tree.Tree  // the input tree; with chrootRootDigest, laid over that root
	root               *stage.Root // its layers
	image              *image.Root // nil: none was asked for
	base               *stage.Root // the image's layers
	scratch            []string    // directories of its tries
	retries            int32
	readOnly, writable []string // what of the input root the client protects, and what below that not
	memory             int64    // limit of the last try
}

func (e *execution) run(ctx context.Context) (*flight.Outcome, error) {
	e.meta.InputFetchStartTimestamp = timestamppb.Now()
	e.observer.Metadata(proto.CloneOf(e.meta))
	if err := e.stage(ctx); err != nil {
		return nil, err
	}
	e.meta.InputFetchCompletedTimestamp = timestamppb.Now()
	var err error
	if e.readOnly, e.writable, err = protected(e.tree, e.action.WholeRoot); err != nil {
		return nil, err
	}
	result, err := e.attempt(ctx)
	if err != nil {
		return nil, err
	}
	if result.Reason == sandbox.Cancelled {
		return nil, errors.Join(context.Cause(ctx), errCancelled)
	}
	e.meta.ExecutionStartTimestamp = timestamppb.New(result.Started)
	e.meta.ExecutionCompletedTimestamp = timestamppb.New(result.Finished)
	e.meta.VirtualExecutionDuration = durationpb.New(max(0, result.Finished.Sub(result.Started)))
	e.observer.Metadata(proto.CloneOf(e.meta))
	return e.finish(ctx, result)
}

// attempt runs the command, and a second time with more memory when the default was not enough.
func (e *execution) attempt(ctx context.Context) (sandbox.Result, error) {
	r := e.runner
	e.memory = r.opt.Memory
	if asked := e.action.Platform.MemoryBytes; asked > 0 {
		e.memory = asked
	}
	result, err := e.try(ctx)
	more := min(r.opt.MaxMemory, 4*e.memory)
	if err != nil || result.Reason != sandbox.OutOfMemory || e.action.Platform.MemoryBytes > 0 || more <= e.memory {
		return result, err
	}
	select {
	case r.retries <- struct{}{}:
		defer func() { <-r.retries }()
	case <-ctx.Done():
		return result, context.Cause(ctx)
	}
	e.memory, e.retries = more, e.retries+1
	return e.try(ctx)
}

// try runs the command once in a fresh scratch directory.
func (e *execution) try(ctx context.Context) (sandbox.Result, error) {
	scratch, err := e.newScratch()
	if err != nil {
		return sandbox.Result{}, err
	}
	e.observer.Output(filepath.Join(scratch, "stdout"), filepath.Join(scratch, "stderr"))
	return e.runner.box.Run(ctx, e.spec(scratch))
}

// newScratch makes a directory with empty files for stdout and stderr, so that they can be followed
// before the sandbox writes to them.
func (e *execution) newScratch() (string, error) {
	r := e.runner
	dir := filepath.Join(r.opt.Dir, scratchDir, strconv.FormatUint(r.sequence.Add(1), 36))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make scratch directory: %w", err)
	}
	e.scratch = append(e.scratch, dir)
	for _, name := range []string{"stdout", "stderr"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return "", fmt.Errorf("make output file: %w", err)
		}
	}
	return dir, nil
}

// spec describes the run to the sandbox.
func (e *execution) spec(scratch string) sandbox.Spec {
	a, o := e.action, &e.runner.opt
	s := sandbox.Spec{
		Lowers: e.root.Lowers, Scratch: scratch, WholeRoot: a.WholeRoot,
		WorkingDirectory: a.WorkingDirectory, Directories: collect.Parents(a), Arguments: a.Arguments, Env: a.Env,
		ReadOnly: e.readOnly, Writable: e.writable, UID: -1, GID: -1, Network: a.Platform.Network && o.Network, Cores: a.Platform.Cores, Background: e.guest,
		Limits: sandbox.Limits{Wall: e.timeout(), Memory: e.memory, Disk: o.Disk, Output: o.Output, Pids: o.Processes},
	}
	if a.WholeRoot {
		s.UID, s.GID = 0, 0
	}
	if e.image != nil {
		e.inImage(&s)
	}
	if a.Platform.UID != nil {
		s.UID = int(*a.Platform.UID)
	}
	if a.Platform.GID != nil {
		s.GID = int(*a.Platform.GID)
	}
	return s
}

func (e *execution) timeout() time.Duration {
	if e.action.Timeout > 0 {
		return e.action.Timeout
	}
	return e.runner.opt.Timeout
}

// cleanUp gives the inputs back and lets the scratch directories be removed.
func (e *execution) cleanUp() {
	for _, staged := range []*stage.Root{e.root, e.base} {
		if staged != nil {
			staged.Release()
		}
	}
	if e.image != nil {
		e.image.Release()
	}
	for _, dir := range e.scratch {
		if e.runner.trash.Throw(dir) != nil {
			_ = os.RemoveAll(dir) // else the next Open does it
		}
	}
}
