package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/buildmesh/buildmesh/exec/cgroup"
	"github.com/buildmesh/buildmesh/exec/sandbox/initproc"
	"golang.org/x/sys/unix"
)

// setupTimeout bounds the time init may take to build the sandbox. It takes milliseconds; a mount that hangs is a fault.
const setupTimeout = 30 * time.Second

// Run runs one action and returns when nothing of it is left running. See Spec for what is asked, Result for what is
// answered; the error is a *CommandError, an ErrSpec, or a fault of this machine. ctx cancels the run.
func (b *Box) Run(ctx context.Context, spec Spec) (Result, error) {
	if b.tier > TierC {
		return Result{}, ErrNoSandbox
	}
	if err := spec.check(); err != nil {
		return Result{}, err
	}
	if spec.Limits.Pids == 0 {
		spec.Limits.Pids = defaultPids
	}
	place, err := newScratch(spec.Scratch, b.owner())
	if err != nil {
		return Result{}, err
	}
	defer place.close()
	if b.tier != TierA {
		if err := b.copyInputs(&spec, place); err != nil {
			return Result{}, err
		}
	}
	group, err := b.groups().New(b.groupName(), cgroup.Limits{Memory: spec.Limits.Memory, Pids: spec.Limits.Pids, Cores: spec.Cores, Idle: spec.Background})
	if err != nil {
		return Result{}, fmt.Errorf("make control group: %w", err)
	}
	if spec.Background {
		defer b.freezable(group, false)
	}
	r := &run{box: b, spec: &spec, place: place, group: group}
	result, err := r.do(ctx)
	if removeErr := group.Remove(); err == nil && removeErr != nil {
		err = fmt.Errorf("remove control group: %w", removeErr)
	}
	return result, err
}

// run is one run in progress.
type run struct {
	box     *Box
	spec    *Spec
	place   *scratch
	group   cgroup.Group
	process process
	reports chan initproc.Report
	broken  error // set before reports is closed, if init talked nonsense

	deadline       *time.Timer // of the setup, then of the action
	started, ended *initproc.Report
	user, system   time.Duration // of all that init has waited for
	reason         Reason
	diskBytes      int64
}

func (r *run) do(ctx context.Context) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{Reason: Cancelled}, nil
	}
	if err := r.start(); err != nil {
		return Result{}, err
	}
	err := r.supervise(ctx)
	user, system, waitErr := r.process.Wait()
	if err != nil {
		return Result{}, err
	}
	r.user, r.system = user, system
	return r.result(waitErr)
}

// start makes an init and tells it what to run. The control group is joined before the action starts, so that it holds
// everything the action does.
func (r *run) start() error {
	g, setup := groundOf(r.spec), r.box.setup(r.spec, r.place)
	var reports *os.File
	var err error
	switch r.box.tier {
	case TierA:
		r.process, reports, err = r.box.launch(g, setup, r.place)
	case TierB:
		r.process, reports, err = r.box.startBubble(setup, r.spec, r.place)
	default:
		r.process, reports, err = r.box.startDirect(r.box.command(g), r.box.prepare(g), setup)
	}
	if err != nil {
		return err
	}
	r.reports = make(chan initproc.Report, 2)
	go r.readReports(reports)
	if r.spec.Background && r.box.tier != TierA {
		err = lower(r.process.PID())
	}
	if err == nil && r.box.grouped() {
		err = r.group.Add(r.process.PID())
	}
	if err == nil {
		err = r.process.Begin()
	}
	if err == nil {
		return nil
	}
	err = r.abandon(fmt.Errorf("begin run: %w", err), false)
	_, _, _ = r.process.Wait()
	return err
}

// readReports hands on what init reports, until init is gone.
func (r *run) readReports(pipe *os.File) {
	defer close(r.reports)
	defer pipe.Close()
	buffer := make([]byte, 0, 4096)
	for {
		n, err := pipe.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		for {
			report, used, decodeErr := initproc.DecodeReport(buffer)
			if decodeErr != nil {
				r.broken = decodeErr
				return
			}
			if used == 0 {
				break
			}
			r.reports <- report
			buffer = buffer[:copy(buffer, buffer[used:])]
		}
		if err != nil {
			return
		}
	}
}

// kill ends init, and with it everything in the pid namespace.
func (r *run) kill() {
	if r.spec.Background { // what stands still does not die, and must not be stopped again meanwhile
		r.box.freezable(r.group, false)
		_ = r.group.Freeze(false)
	}
	if r.box.tier == TierA {
		_ = r.group.Kill()
	}
	r.process.Kill()
}

func (r *run) stop(reason Reason) {
	if r.reason == Exited {
		r.reason = reason
	}
	r.kill()
}

// supervise follows the run to its end and stops it when it goes beyond a limit. It returns when init has closed its end
// of the report pipe, that is when init is dead or dying.
func (r *run) supervise(ctx context.Context) error {
	r.deadline = time.NewTimer(setupTimeout)
	defer r.deadline.Stop()
	look := time.NewTicker(watchPause)
	defer look.Stop()
	disk := startDiskWatch(r.place.upper, r.spec.Limits.Disk, r.box.options.MinFree)
	defer func() { r.diskBytes = disk.end() }()
	cancel := ctx.Done()
	for {
		select {
		case report, open := <-r.reports:
			if !open {
				return r.broken
			}
			if err := r.hear(report); err != nil {
				return err
			}
		case <-r.deadline.C:
			if r.started == nil {
				return r.abandon(fmt.Errorf("set sandbox up: no answer within %v", setupTimeout), true)
			}
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

// hear takes in one report.
func (r *run) hear(report initproc.Report) error {
	switch report.Kind {
	case initproc.Fault:
		return r.abandon(r.fault(report), true)
	case initproc.Started:
		r.started = &report
		r.deadline.Stop()
		if r.spec.Limits.Wall > 0 {
			r.deadline.Reset(r.spec.Limits.Wall)
		}
		if r.spec.Background && r.reason == Exited { // what stood still in its setup would pass for broken
			r.box.freezable(r.group, true)
		}
	case initproc.Ended:
		r.ended = &report
		r.deadline.Stop()
	}
	return nil
}

// abandon kills a run that cannot be and waits until its reports have ended. If it had not begun, a fault that init met
// tells more than the error.
func (r *run) abandon(err error, begun bool) error {
	r.kill()
	for report := range r.reports {
		if !begun && report.Kind == initproc.Fault {
			err = r.fault(report)
		}
	}
	return err
}

// fault makes an error of a Fault.
func (r *run) fault(report initproc.Report) error {
	errno := syscall.Errno(report.Errno)
	command := report.Stage == initproc.StageLookup || report.Stage == initproc.StageExec &&
		(errno == syscall.ENOENT || errno == syscall.EACCES || errno == syscall.ENOEXEC || errno == syscall.ENOTDIR ||
			errno == syscall.E2BIG || errno == syscall.ELOOP || errno == syscall.ENAMETOOLONG)
	if command {
		return &CommandError{Program: r.spec.Arguments[0], Err: errno}
	}
	return fmt.Errorf("sandbox: %v %s: %w", report.Stage, report.Subject, errno)
}

var errInitDied = errors.New("init died")

// result puts together what is known of a run that has ended.
func (r *run) result(waitErr error) (Result, error) {
	used, err := r.group.Stat()
	if err != nil {
		return Result{}, fmt.Errorf("read control group: %w", err)
	}
	result := Result{Upper: r.place.upper, StdoutPath: r.place.stdout.Name(), StderrPath: r.place.stderr.Name(), Finished: time.Now()}
	result.Started = result.Finished
	if r.started != nil {
		result.Started = time.Unix(0, r.started.Time)
	}
	if r.ended != nil {
		result.Finished = time.Unix(0, r.ended.Time)
		result.Usage = usageOf(r.ended.Usage)
		status := unix.WaitStatus(r.ended.Status)
		result.ExitCode = status.ExitStatus()
		if status.Signaled() {
			result.Signal = int(status.Signal())
		}
	} else {
		result.Signal = int(unix.SIGKILL)
		result.Usage.User, result.Usage.System = r.user, r.system
	}
	if result.Signal != 0 {
		result.ExitCode = 128 + result.Signal
	}
	result.Merged = r.box.tier != TierA
	r.count(&result, used)
	result.Reason = r.why(&result, used)
	if result.Reason == Exited && r.ended == nil {
		return Result{}, fmt.Errorf("run sandbox: %w: %v", errInitDied, waitErr)
	}
	return result, nil
}

// count adds what others than init have counted.
func (r *run) count(result *Result, used cgroup.Stat) {
	u := &result.Usage
	u.OutputBytes, u.ScratchBytes = r.place.written(), r.diskBytes
	if !used.Counted {
		return
	}
	u.MaxRSS = max(u.MaxRSS, used.PeakMemory)
	if used.UserNanos+used.SystemNanos > 0 {
		u.User, u.System = time.Duration(used.UserNanos), time.Duration(used.SystemNanos)
	}
}

// why tells why a run ended. A limit that the kernel enforced shows only in how the run failed: a run that succeeded in
// spite of it did succeed. A disk without room is another matter: not every program notices that it could not write.
func (r *run) why(result *Result, used cgroup.Stat) Reason {
	limits := &r.spec.Limits
	switch {
	case r.reason != Exited:
		return r.reason
	case limits.Output > 0 && result.Usage.OutputBytes > limits.Output:
		return OutputTooLarge
	case spaceLacked(r.place.upper, r.box.options.MinFree):
		return DiskFull
	case result.ExitCode == 0 && r.ended != nil:
		return Exited
	case used.OutOfMemory || r.ended != nil && r.ended.Memory:
		return OutOfMemory
	case limits.Output > 0 && result.Usage.OutputBytes >= limits.Output:
		return OutputTooLarge
	case limits.Disk > 0 && finalUsage(r.place.upper, limits.Disk) > limits.Disk:
		return DiskFull
	}
	return Exited
}

func usageOf(u initproc.Usage) Usage {
	return Usage{
		User: time.Duration(u.UserNanos), System: time.Duration(u.SystemNanos), MaxRSS: u.MaxRSSBytes,
		ReadBytes: u.ReadBlocks * 512, WriteBytes: u.WriteBlocks * 512,
		MinorFaults: u.MinorFaults, MajorFaults: u.MajorFaults,
		VoluntarySwitches: u.Voluntary, InvoluntarySwitches: u.InvoluntarySwap,
	}
}
