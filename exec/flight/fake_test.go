package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
)

// fakeBlobs is a store in a map.
type fakeBlobs struct {
	mu      sync.Mutex // guards content
	content map[digest.Digest][]byte
}

func (f *fakeBlobs) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([][]byte, len(ds))
	for i, d := range ds {
		if out[i] = f.content[d]; d.IsEmpty() {
			out[i] = []byte{}
		}
	}
	return out, nil
}

func (f *fakeBlobs) Missing(_ context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	return nil, nil
}

func (f *fakeBlobs) put(t testing.TB, m proto.Message) digest.Digest {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := digest.SHA256.Of(data)
	f.content[d] = data
	return d
}

// fakeResults is a cache in a map.
type fakeResults struct {
	mu      sync.Mutex // guards all below
	stored  map[digest.Digest]*repb.ActionResult
	from    string // who has them
	asked   int
	about   Meta // what the last to ask said of itself
	putErr  error
	panicks bool
}

func (f *fakeResults) Get(_ context.Context, a *action.Action, about Meta) (*repb.ActionResult, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	f.about = about
	if f.panicks {
		panic("cache is broken")
	}
	if r := f.stored[a.Digest]; r != nil {
		return r, f.from, nil
	}
	return nil, "", fmt.Errorf("action %s: %w", a.Digest.Short(), ErrNotCached)
}

func (f *fakeResults) Put(_ context.Context, a *action.Action, r *repb.ActionResult, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panicks {
		panic("cache is broken")
	}
	if f.putErr != nil {
		return f.putErr
	}
	f.stored[a.Digest] = r
	return nil
}

// run is one call of the fake executor.
type run struct {
	ctx      context.Context
	action   *action.Action
	observer Observer
	end      chan ending
}

// ending is how a run ends.
type ending struct {
	outcome *Outcome
	err     error
	panics  any
}

// fakeExecutor hands each run to the test, which ends it. It obeys ctx.
type fakeExecutor struct{ runs chan *run }

func (f *fakeExecutor) Execute(ctx context.Context, a *action.Action, o Observer) (*Outcome, error) {
	r := &run{ctx: ctx, action: a, observer: o, end: make(chan ending, 1)}
	select {
	case f.runs <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case e := <-r.end:
		if e.panics != nil {
			panic(e.panics)
		}
		return e.outcome, e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// good is the ending of an action that succeeded.
func good(path string) ending {
	return ending{outcome: &Outcome{Result: &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: path}}}}}
}

// fakeStreams names each file followed and remembers which are over.
type fakeStreams struct {
	mu       sync.Mutex // guards finished
	finished []string
}

func (f *fakeStreams) Follow(path string) (string, func()) {
	return "stream" + path, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.finished = append(f.finished, path)
	}
}

// codeOf is a small table of statuses.
func codeOf(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, ErrClosed):
		return status.Error(codes.Unavailable, err.Error())
	}
	if _, ok := errors.AsType[*action.UnsupportedError](err); ok {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

// lab is a table with fakes all around.
type lab struct {
	*Table
	blobs    *fakeBlobs
	results  *fakeResults
	executor *fakeExecutor
	streams  *fakeStreams
}

func newLab(t testing.TB, bend ...func(*Options)) *lab {
	l := &lab{
		blobs:    &fakeBlobs{content: map[digest.Digest][]byte{}},
		results:  &fakeResults{stored: map[digest.Digest]*repb.ActionResult{}},
		executor: &fakeExecutor{runs: make(chan *run)},
		streams:  &fakeStreams{},
	}
	o := Options{Blobs: l.blobs, Executor: l.executor, Results: l.results, Streams: l.streams, Status: codeOf}
	for _, b := range bend {
		b(&o)
	}
	l.Table = New(o)
	t.Cleanup(l.Close)
	return l
}

// action stores an action that differs from others by name and gives a request for it.
func (l *lab) action(t testing.TB, name string, bend ...func(*repb.Action)) Request {
	t.Helper()
	a := &repb.Action{
		CommandDigest:   l.blobs.put(t, &repb.Command{Arguments: []string{name}}).Proto(),
		InputRootDigest: digest.SHA256.Empty().Proto(),
	}
	for _, b := range bend {
		b(a)
	}
	return Request{Action: l.blobs.put(t, a)}
}

// execute starts or joins a flight and fails the test when that fails.
func (l *lab) execute(t testing.TB, r Request) *Flight {
	t.Helper()
	f, err := l.Execute(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// done waits until f has ended.
func done(t testing.TB, f *Flight) State {
	t.Helper()
	s, err := f.State(), error(nil)
	for !s.Done() && err == nil {
		s, err = f.Wait(t.Context(), s.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func uncached(a *repb.Action) { a.DoNotCache = true }

func codeIn(s State) codes.Code { return codes.Code(s.Response.GetStatus().GetCode()) }
