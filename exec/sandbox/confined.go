//go:build linux || darwin || windows

package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Tier C on systems where no init of ours watches over the action: the node starts the processes itself, through the
// means of the system (a launcher), and has a handle on all of them together (a body). What is the same everywhere is here:
// the copy of the inputs, directories, environment, limits, and the result.

// launcher starts the processes of runs by the means of one operating system.
type launcher interface {
	// Search tells where programs are looked for.
	Search(directory string) search
	// Environment gives the variables an action gets unless it has its own. tmp is the run's private directory.
	Environment(tmp string) []string
	// Start starts the action. The error is a fault of the machine, or a *CommandError.
	Start(l *launch) (body, error)
}

// launch is what a launcher starts.
type launch struct {
	program   string   // absolute path
	arguments []string // argv, the name of the program first
	env       []string // K=V
	directory string   // working directory, absolute
	place     *scratch
	spec      *Spec
}

// body is all processes of one run.
type body interface {
	// Wait returns when the main process has ended, whatever else still runs. It is called once.
	Wait() error
	// Kill ends all processes. It may be called while Wait waits, and more than once.
	Kill()
	// End is called once, after Wait. It kills what is left, returns when that is gone, and tells what was used. The error
	// is a fault: something may still run.
	End() (ending, error)
}

// endPause and endTries bound how long a killed run may take to be gone: ten seconds, after which it is a fault.
const (
	endPause = time.Millisecond
	endTries = 10000
)

// ending is what a body knows of a run that has ended.
type ending struct {
	exitCode int
	signal   int // 0 if the main process exited
	memory   bool
	usage    Usage
}

// confinement runs actions in copies of their inputs.
type confinement struct {
	launcher launcher
	minFree  int64 // bytes that must stay free on the disk
	foldCase bool  // names of variables are the same in either case
}

// run is Box.Run in tier C. See there.
func (c *confinement) run(ctx context.Context, spec Spec) (Result, error) {
	if err := spec.check(); err != nil {
		return Result{}, err
	}
	if spec.WholeRoot {
		return Result{}, fmt.Errorf("%w of tier A: the input root is to be the root", ErrNoSandbox)
	}
	if spec.Limits.Pids == 0 {
		spec.Limits.Pids = defaultPids
	}
	place, err := newScratch(spec.Scratch, owner{})
	if err != nil {
		return Result{}, err
	}
	defer place.close()
	if err := copyLayers(spec.Lowers, place.upper, owner{}); err != nil {
		return Result{}, err
	}
	if err := makeDirectories(&spec, place.upper); err != nil {
		return Result{}, err
	}
	if ctx.Err() != nil {
		return Result{Reason: Cancelled}, nil
	}
	l := &launch{
		arguments: spec.Arguments, env: withDefaults(spec.Env, c.launcher.Environment(place.work), c.foldCase),
		directory: filepath.Join(place.upper, spec.WorkingDirectory), place: place, spec: &spec,
	}
	where := c.launcher.Search(l.directory)
	if l.program, err = where.find(spec.Arguments[0], l.env); err != nil {
		return Result{}, err
	}
	started := time.Now()
	all, err := c.launcher.Start(l)
	if err != nil {
		return Result{}, err
	}
	w := &confinedRun{body: all, spec: &spec, place: place, minFree: c.minFree}
	return w.follow(ctx, started)
}

// makeDirectories makes the directories that must exist. An input may be a link to anywhere: it is not followed out of the
// copy, since the node, not the confined action, would write there.
func makeDirectories(spec *Spec, upper string) error {
	root, err := os.OpenRoot(upper)
	if err != nil {
		return fmt.Errorf("make directories of run: %w", err)
	}
	defer root.Close()
	for _, d := range append([]string{spec.WorkingDirectory}, spec.Directories...) {
		if d == "" || d == "." {
			continue
		}
		if err := root.MkdirAll(filepath.FromSlash(d), 0o755); err != nil {
			return fmt.Errorf("make directories of run: %w", err)
		}
	}
	return nil
}

// confinedRun is one run in progress.
type confinedRun struct {
	body      body
	spec      *Spec
	place     *scratch
	minFree   int64
	reason    Reason
	diskBytes int64
}

// follow waits for the end of the run, and brings it about when a limit is exceeded or ctx is done. Nothing of the run is
// left when it returns without an error.
func (r *confinedRun) follow(ctx context.Context, started time.Time) (Result, error) {
	over := make(chan error, 1)
	go func() { over <- r.body.Wait() }()
	waitErr := r.supervise(ctx, over)
	finished := time.Now()
	end, err := r.body.End()
	if err == nil {
		err = waitErr
	}
	if err != nil {
		return Result{}, fmt.Errorf("run action: %w", err)
	}
	return r.result(end, started, finished), nil
}

// supervise stops a run that goes beyond a limit and returns when its main process has ended.
func (r *confinedRun) supervise(ctx context.Context, over <-chan error) error {
	var wall <-chan time.Time
	if r.spec.Limits.Wall > 0 {
		timer := time.NewTimer(r.spec.Limits.Wall)
		defer timer.Stop()
		wall = timer.C
	}
	look := time.NewTicker(watchPause)
	defer look.Stop()
	disk := startDiskWatch(r.place.upper, r.spec.Limits.Disk, r.minFree)
	defer func() { r.diskBytes = disk.end() }()
	cancel := ctx.Done()
	for {
		select {
		case err := <-over:
			return err
		case <-wall:
			r.stop(TimedOut)
		case <-cancel:
			r.stop(Cancelled)
			cancel = nil
		case <-disk.exceeded:
			r.stop(DiskFull)
		case <-look.C:
			if limit := r.spec.Limits.Output; limit > 0 && r.place.written() > limit {
				r.stop(OutputTooLarge)
			}
		}
	}
}

func (r *confinedRun) stop(reason Reason) {
	if r.reason == Exited {
		r.reason = reason
	}
	r.body.Kill()
}

// result puts together what is known of the run. The inputs are part of Upper.
func (r *confinedRun) result(end ending, started, finished time.Time) Result {
	result := Result{
		ExitCode: end.exitCode, Signal: end.signal, Usage: end.usage, Started: started, Finished: finished,
		Upper: r.place.upper, Merged: true, StdoutPath: r.place.stdout.Name(), StderrPath: r.place.stderr.Name(),
	}
	if end.signal != 0 {
		result.ExitCode = 128 + end.signal
	}
	result.Usage.OutputBytes, result.Usage.ScratchBytes = r.place.written(), r.diskBytes
	result.Reason = r.why(&result, end.memory)
	return result
}

// why tells why a run ended, as run.why does in the other tiers: what was written in the last moments counts too.
func (r *confinedRun) why(result *Result, memory bool) Reason {
	limits := &r.spec.Limits
	switch {
	case r.reason != Exited:
		return r.reason
	case limits.Output > 0 && result.Usage.OutputBytes > limits.Output:
		return OutputTooLarge
	case spaceLacked(r.place.upper, r.minFree):
		return DiskFull
	case result.ExitCode == 0:
		return Exited
	case memory:
		return OutOfMemory
	case limits.Disk > 0 && finalUsage(r.place.upper, limits.Disk) > limits.Disk:
		return DiskFull
	}
	return Exited
}
