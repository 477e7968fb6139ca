package bot

import (
	"context"
	"fmt"
	"path"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
)

// WorkerPrefix begins the name of the worker in results that bots made.
const WorkerPrefix = "bot "

// overtime is how much longer than its timeout an action may stay with a bot, which fetches inputs and
// uploads outputs besides.
const overtime = 10 * time.Minute

// FailureError says that a bot could not run an action, in the bot's own words.
type FailureError struct {
	Bot     string
	Code    codes.Code
	Message string
}

func (e *FailureError) Error() string { return fmt.Sprintf("bot %s: %v: %s", e.Bot, e.Code, e.Message) }

// transient reports whether the fault is the bot's and not the action's.
func (e *FailureError) transient() bool {
	switch e.Code {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.DeadlineExceeded:
		return false
	}
	return true
}

// lent is the executor of one action that was given to a bot.
type lent struct {
	placer  *Placer
	attempt *attempt
	request flight.Request
}

// Execute implements flight.Executor. When a bot is lost or fails, the action is placed anew; after
// Attempts bots it runs here, if this machine suits.
func (l *lent) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	p, at := l.placer, l.attempt
	for n := 1; ; n++ {
		outcome, err := p.await(ctx, at, o)
		if err == nil || !retryable(err) || ctx.Err() != nil {
			return outcome, err
		}
		place := p.Place
		if n >= p.options.Attempts {
			if p.options.Suits(a.Platform) != nil {
				return nil, &UnavailableError{err}
			}
			place = p.options.Here.Place
		}
		executor, release, placeErr := place(ctx, a, l.request)
		if placeErr != nil {
			return nil, fmt.Errorf("%w, after: %w", placeErr, err)
		}
		again, withBot := executor.(*lent)
		if !withBot {
			defer release()
			return executor.Execute(ctx, a, o)
		}
		at = again.attempt
	}
}

// await waits for the result of one attempt, and checks it.
func (p *Placer) await(ctx context.Context, at *attempt, o flight.Observer) (*flight.Outcome, error) {
	a := at.work.action
	started := &repb.ExecutedActionMetadata{Worker: WorkerPrefix + at.bot, WorkerStartTimestamp: timestamppb.Now()}
	o.Metadata(started)
	var late <-chan time.Time
	if a.Timeout > 0 {
		timer := time.NewTimer(a.Timeout + overtime)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-at.ended:
	case <-late:
		at.withdraw()
		return nil, &FailureError{Bot: at.bot, Code: codes.DeadlineExceeded, Message: "no result long after the action's timeout"}
	case <-ctx.Done():
		at.withdraw()
		return nil, context.Cause(ctx)
	}
	if at.err != nil {
		return nil, fmt.Errorf("bot %s: %w", at.bot, at.err)
	}
	if code := codes.Code(at.report.Code); code != codes.OK {
		return nil, &FailureError{Bot: at.bot, Code: code, Message: at.report.Message}
	}
	result := &repb.ActionResult{}
	if at.report.Result == nil {
		return nil, &FailureError{Bot: at.bot, Code: codes.Internal, Message: "completed without a result"}
	}
	if err := at.report.Result.UnmarshalTo(result); err != nil {
		return nil, &FailureError{Bot: at.bot, Code: codes.Internal, Message: "its result cannot be read: " + err.Error()}
	}
	if err := p.check(ctx, a, result); err != nil {
		return nil, &FailureError{Bot: at.bot, Code: codes.Internal, Message: err.Error()}
	}
	if result.ExecutionMetadata == nil {
		result.ExecutionMetadata = &repb.ExecutedActionMetadata{WorkerStartTimestamp: started.WorkerStartTimestamp, WorkerCompletedTimestamp: timestamppb.Now()}
	}
	result.ExecutionMetadata.Worker = WorkerPrefix + at.bot
	return &flight.Outcome{Result: result, Message: "ran with bot " + at.bot}, nil
}

// check makes sure that a result says nothing but what was asked for, in the client's own words, and
// that all of it is in our store.
func (p *Placer) check(ctx context.Context, a *action.Action, r *repb.ActionResult) error {
	asked := make(map[string]string, len(a.Outputs))
	for _, o := range a.Outputs {
		asked[o.Clean] = o.Path
	}
	echo := func(to *string) error {
		if path.IsAbs(*to) {
			return fmt.Errorf("its output %q is absolute", *to)
		}
		clean := path.Join(a.WorkingDirectory, *to)
		if clean == "" {
			clean = "."
		}
		said, found := asked[clean]
		if !found {
			return fmt.Errorf("its output %q was not asked for", *to)
		}
		*to = said
		return nil
	}
	for _, f := range r.OutputFiles {
		if err := echo(&f.Path); err != nil {
			return err
		}
	}
	for _, d := range r.OutputDirectories {
		if err := echo(&d.Path); err != nil {
			return err
		}
	}
	//lint:ignore SA1019 bots written for API 2.0 fill these lists
	for _, list := range [][]*repb.OutputSymlink{r.OutputSymlinks, r.OutputFileSymlinks, r.OutputDirectorySymlinks} {
		for _, s := range list {
			if err := echo(&s.Path); err != nil {
				return err
			}
		}
	}
	return p.options.Complete(ctx, a.Digest.Function(), r)
}
