package wrong

import (
	"context"
	"slices"
	"sync"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// operation is one execution, running or finished.
type operation struct {
	name   string
	action digest.Digest
	skip   bool // skip_cache_lookup
	alone  bool // do_not_cache: never merged
	cancel context.CancelFunc
	stdout *logStream // nil for a cached result

	mu       sync.Mutex // guards what follows
	stages   []repb.ExecutionStage_Value
	response *repb.ExecuteResponse
	changed  chan struct{} // closed and replaced at each change
}

func newOperation(d digest.Digest, cancel context.CancelFunc) *operation {
	return &operation{
		name: "operations/" + uuid.NewString(), action: d, cancel: cancel, changed: make(chan struct{}),
		stages: []repb.ExecutionStage_Value{repb.ExecutionStage_QUEUED},
	}
}

// enter reports a stage.
func (o *operation) enter(stage repb.ExecutionStage_Value) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stages = append(o.stages, stage)
	close(o.changed)
	o.changed = make(chan struct{})
}

// finish ends the operation; the first response stays.
func (o *operation) finish(resp *repb.ExecuteResponse) {
	o.mu.Lock()
	if o.response == nil {
		o.response = resp
	}
	o.mu.Unlock()
	o.enter(repb.ExecutionStage_COMPLETED)
}

// state is how many stages have been entered, the last of them, the response once there is one,
// and a channel that is closed when that changes.
func (o *operation) state() (int, repb.ExecutionStage_Value, *repb.ExecuteResponse, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.stages), o.stages[len(o.stages)-1], o.response, o.changed
}

// message is the operation as it goes over the wire at a stage.
func (s *Server) message(o *operation, stage repb.ExecutionStage_Value, resp *repb.ExecuteResponse) (*longrunningpb.Operation, error) {
	op := &longrunningpb.Operation{Name: o.name}
	if s.has(NamesChange) {
		op.Name = "operations/" + uuid.NewString()
	}
	about := &repb.ExecuteOperationMetadata{Stage: stage, ActionDigest: o.action.Proto(), DigestFunction: o.action.Function().Proto()}
	if o.stdout != nil {
		about.StdoutStreamName = o.stdout.name
	}
	if s.has(StdoutStreamUnreadable) {
		about.StdoutStreamName = "logstreams/none"
	}
	meta, err := anypb.New(about)
	if err != nil {
		return nil, err
	}
	op.Metadata = meta
	if s.has(DoneTooSoon) && stage == repb.ExecutionStage_EXECUTING {
		op.Done = true
	}
	if stage != repb.ExecutionStage_COMPLETED {
		return op, nil
	}
	op.Done = true
	if code := resp.GetStatus().GetCode(); s.has(ErrorInOperation) && code != 0 {
		op.Result = &longrunningpb.Operation_Error{Error: &status.Status{Code: code}}
		return op, nil
	}
	packed, err := anypb.New(resp)
	if err != nil {
		return nil, err
	}
	op.Result = &longrunningpb.Operation_Response{Response: packed}
	return op, nil
}

// operations is every operation of the server, in the order begun.
type operations struct {
	mu   sync.Mutex // guards list
	list []*operation
}

func (all *operations) add(o *operation) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.list = append(all.list, o)
}

func (all *operations) remove(o *operation) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.list = slices.DeleteFunc(all.list, func(other *operation) bool { return other == o })
}

// find gives the first operation for which match holds, nil when there is none.
func (all *operations) find(match func(*operation) bool) *operation {
	all.mu.Lock()
	defer all.mu.Unlock()
	if i := slices.IndexFunc(all.list, match); i >= 0 {
		return all.list[i]
	}
	return nil
}

func (all *operations) named(name string) *operation {
	return all.find(func(o *operation) bool { return o.name == name })
}

func (all *operations) snapshot() []*operation {
	all.mu.Lock()
	defer all.mu.Unlock()
	return slices.Clone(all.list)
}
