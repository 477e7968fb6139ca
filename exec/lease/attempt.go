package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/run"
	usagev1 "github.com/buildmesh/buildmesh/proto/usage/v1"
)

// failedError ends an attempt without a result.
type failedError struct {
	why   place.Failure
	err   error
	bytes int64 // of memory that were not enough
}

func (e *failedError) Error() string {
	return fmt.Sprintf("%s: %s", e.why, status.Convert(e.err).Message()) // a peer's error is a status
}
func (e *failedError) Unwrap() error { return e.err }

// lost is the error of an executor that is gone or has a fault.
func lost(err error) error { return &failedError{why: place.Lost, err: err} }

// run takes an attempt from its reservation to its result.
func (i *Initiator) run(ctx context.Context, t *attempt, lease *ID) {
	var link executor = i.ownLink(t.work)
	if t.Peer != i.options.Self {
		link = &remote{initiator: i, peer: t.Peer}
	}
	if lease == nil {
		id, refusal, err := link.reserve(ctx, i.request(t))
		if refusal != nil {
			i.refused(t, refusal)
			return
		}
		if err != nil {
			i.failed(ctx, t, lost(err), nil)
			return
		}
		lease = &id
	}
	c := Claim{Lease: *lease, Caller: i.options.Self, Attempt: t.Attempt, Epoch: i.options.Epoch}
	i.note(t, "leased %s", roomText(t.Reserve))
	i.step(func(c *place.Core, now time.Time) {
		c.Granted(now, t.Try)
		if !t.work.placed {
			t.work.placed = true
			close(t.work.granted)
		}
	})
	if t.Peer == i.options.Self {
		i.Refresh() // what was told between the reservation and now counts its cores twice
	}
	select {
	case <-t.work.watched:
	case <-ctx.Done():
		link.cancel(c)
		return
	}
	began := time.Now()
	outcome, err := link.run(ctx, c, t)
	var failed *failedError
	if errors.As(err, &failed) || err != nil && ctx.Err() != nil {
		link.cancel(c)
		i.failed(ctx, t, err, outcome)
		return
	}
	i.completed(t, outcome, err, time.Since(began))
	if ctx.Err() != nil { // it came too late, and its call may be broken
		link.cancel(c)
		return
	}
	link.ack(c)
}

// roomText is what an attempt reserves, for people.
func roomText(r *place.Reserve) string {
	text := "1 core"
	if r.Cores != 1 {
		text = fmt.Sprintf("%g cores", r.Cores)
	}
	if r.Limit > 0 {
		text += fmt.Sprintf(" and %d MiB of memory, as less was not enough", r.Limit>>20)
	}
	return text
}

// request is what an attempt asks of its executor.
func (i *Initiator) request(t *attempt) Request {
	a := t.work.action
	return Request{
		Caller: i.options.Self, Action: a.Digest, Invocation: t.work.request.Meta.Invocation, Attempt: t.Attempt, Epoch: i.options.Epoch,
		Cores: t.Cores, MemoryBytes: t.MemoryBytes,
		Alone: t.work.trace.Class == place.Local || a.DoNotCache || t.work.request.SkipCacheLookup || t.work.audits(),
	}
}

// refused tells the core that there was no room.
func (i *Initiator) refused(t *attempt, r *Refusal) {
	i.note(t, "refused: %s", r.Reason)
	i.step(func(c *place.Core, now time.Time) {
		if i.attempts[t.Try] == t {
			delete(i.attempts, t.Try) // the number is used again
		}
		c.Refused(now, t.Try, place.Refusal{Reason: r.Reason, FreeCores: r.FreeCores, FreeBytes: r.FreeBytes})
	})
}

// failed tells the core that an attempt brought nothing. What there is of an action that ran out of the most
// memory is kept, in case nobody has more.
func (i *Initiator) failed(ctx context.Context, t *attempt, err error, outcome *flight.Outcome) {
	if ctx.Err() != nil {
		i.note(t, "cancelled: %v", context.Cause(ctx))
		return // the core wanted it so
	}
	i.note(t, "%v", err)
	failed := &failedError{why: place.Lost}
	errors.As(err, &failed)
	i.step(func(c *place.Core, now time.Time) {
		if failed.why != place.OutOfMemory {
			c.Failed(now, t.Try, failed.why)
			return
		}
		if !t.work.ended && t.Limit >= t.work.limit {
			t.work.outcome, t.work.err, t.work.limit = outcome, failed.err, t.Limit
		}
		c.Starved(now, t.Try, failed.bytes)
	})
}

// completed takes a result: the current attempt's ends the work, a later one is compared.
func (i *Initiator) completed(t *attempt, outcome *flight.Outcome, err error, took time.Duration) {
	w := t.work
	var sample place.Sample
	if err == nil {
		sample = sampleOf(outcome, took, t.Peer == i.options.Self)
	}
	current := false
	i.step(func(c *place.Core, now time.Time) {
		if current = c.Current(t.Try); !current {
			return
		}
		w.trace.Learned = c.Finished(now, t.Try, sample)
		w.trace.Attempts[t.at].Won = true
		i.end(w, outcome, err)
	})
	switch {
	case err != nil:
		i.note(t, "failed: %v", err)
	case current:
		i.note(t, "done, exit code %d", outcome.Result.GetExitCode())
	default:
		i.note(t, "done too late")
	}
	i.compare(t, outcome, err, current)
}

// sampleOf reads what a run needed from its result. What a peer claims is bounded by what was seen: it did not run for longer than
// the attempt took, and one that says that nearly all of that went into fetching is not taken for a fast one.
func sampleOf(o *flight.Outcome, took time.Duration, own bool) place.Sample {
	m := o.Result.GetExecutionMetadata()
	s := place.Sample{Duration: took, OutputBytes: outputBytes(o.Result)}
	if from, to := m.GetExecutionStartTimestamp(), m.GetExecutionCompletedTimestamp(); from != nil && to != nil {
		least := time.Millisecond
		if !own {
			least = max(took/4, least)
		}
		s.Duration = min(max(to.AsTime().Sub(from.AsTime()), least), max(took, least))
	}
	for _, extra := range m.GetAuxiliaryMetadata() {
		var u usagev1.ResourceUsage
		if extra.MessageIs(&u) && extra.UnmarshalTo(&u) == nil {
			cpu := u.UserTime.AsDuration() + u.SystemTime.AsDuration()
			s.Cores = cpu.Seconds() / s.Duration.Seconds()
			s.MemoryBytes, s.InputBytes = u.MaxResidentBytes, u.InputBytes
			if len(o.Result.OutputDirectories) > 0 { // what is in them, the result alone does not tell
				s.OutputBytes = max(s.OutputBytes, u.WrittenBytes)
			}
		}
	}
	return s
}

// outputBytes is what a result names directly, without the files of its directories.
func outputBytes(r *repb.ActionResult) int64 {
	total := r.GetStdoutDigest().GetSizeBytes() + r.GetStderrDigest().GetSizeBytes()
	for _, f := range r.GetOutputFiles() {
		total += f.GetDigest().GetSizeBytes()
	}
	for _, d := range r.GetOutputDirectories() {
		total += d.GetTreeDigest().GetSizeBytes()
	}
	return total
}

// executor is what an attempt needs of the one it runs at, here or elsewhere.
type executor interface {
	reserve(ctx context.Context, r Request) (ID, *Refusal, error)
	// run gives a result, and with it an error that is the action's own; else a *failedError, or ctx's.
	run(ctx context.Context, c Claim, t *attempt) (*flight.Outcome, error)
	ack(c Claim)
	cancel(c Claim)
}

// own is this machine.
type own struct {
	executor *Executor
	runner   flight.Executor
}

func (i *Initiator) ownLink(w *work) *own {
	if w.audits() {
		return &own{i.options.Executor, i.options.Spare}
	}
	return &own{i.options.Executor, i.options.Run}
}

func (o *own) reserve(_ context.Context, r Request) (ID, *Refusal, error) {
	id, _, refusal := o.executor.reserve(r)
	return id, refusal, nil
}

func (o *own) ack(c Claim) {
	o.executor.with(func(b *Book, now time.Time) { _ = b.Ack(now, c) }) // a lease that is gone needs none
}

func (o *own) cancel(c Claim) {
	o.executor.with(func(b *Book, now time.Time) { b.Cancel(now, c) })
}

// run runs the action under its own observer, or waits for the equal one that a peer began here.
func (o *own) run(ctx context.Context, c Claim, t *attempt) (*flight.Outcome, error) {
	a := t.work.action
	a = withMemory(a, t.Limit)
	outcome, err := o.executor.runOwn(ctx, c, a, func(ctx context.Context) (*flight.Outcome, error) {
		return o.runner.Execute(ctx, a, t.work.observer)
	})
	var resource *run.ResourceError
	if errors.As(err, &resource) && resource.Resource == run.Memory {
		return outcome, &failedError{place.OutOfMemory, err, resource.Limit}
	}
	if outcome == nil && err == nil {
		err = errors.New("the executor brought no result back")
	}
	return outcome, err
}
