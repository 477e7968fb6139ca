package execution

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// Sizes of a page of ListOperations.
const (
	defaultPage = 100
	maxPage     = 1000
)

// Operations is the google.longrunning.Operations service over all flights.
type Operations struct {
	longrunningpb.UnimplementedOperationsServer
	flights *flight.Table
}

// unknownError says that no operation of this name exists, or none any more. It brings its own code,
// because node/reapi knows no operations.
type unknownError struct{ name string }

func (e *unknownError) Error() string { return fmt.Sprintf("operation %q is not known here", e.name) }

// GRPCStatus makes the error NOT_FOUND.
func (e *unknownError) GRPCStatus() *status.Status { return status.New(codes.NotFound, e.Error()) }

func (o *Operations) find(name string) (*flight.Flight, error) {
	f, found := o.flights.Find(name)
	if !found {
		return nil, &unknownError{name: name}
	}
	return f, nil
}

// GetOperation gives the present state.
func (o *Operations) GetOperation(_ context.Context, q *longrunningpb.GetOperationRequest) (*longrunningpb.Operation, error) {
	f, err := o.find(q.Name)
	if err != nil {
		return nil, reapi.Status(err)
	}
	op, err := operation(f, f.State())
	return op, reapi.Status(err)
}

// CancelOperation ends the run for everyone who waits for it. For an unknown name it is
// INVALID_ARGUMENT: BuildStream takes no other answer.
func (o *Operations) CancelOperation(_ context.Context, q *longrunningpb.CancelOperationRequest) (*emptypb.Empty, error) {
	f, err := o.find(q.Name)
	if err != nil {
		return nil, reapi.Status(&reapi.FieldError{Field: "name", Reason: err.Error()})
	}
	f.Cancel()
	return &emptypb.Empty{}, nil
}

// DeleteOperation makes the name unknown. It cancels nothing.
func (o *Operations) DeleteOperation(_ context.Context, q *longrunningpb.DeleteOperationRequest) (*emptypb.Empty, error) {
	if !o.flights.Forget(q.Name) {
		return nil, reapi.Status(&unknownError{name: q.Name})
	}
	return &emptypb.Empty{}, nil
}

// WaitOperation waits until the operation is done, the timeout of the request or that of the call is over,
// and gives the state it is in then.
func (o *Operations) WaitOperation(ctx context.Context, q *longrunningpb.WaitOperationRequest) (*longrunningpb.Operation, error) {
	f, err := o.find(q.Name)
	if err != nil {
		return nil, reapi.Status(err)
	}
	if q.Timeout != nil {
		if err := q.Timeout.CheckValid(); err != nil {
			return nil, reapi.Status(&reapi.FieldError{Field: "timeout", Reason: err.Error()})
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.Timeout.AsDuration())
		defer cancel()
	}
	state := f.State()
	for err == nil && !state.Done() {
		state, err = f.Wait(ctx, state.Version) // an error is the end of ctx: the state is the answer
	}
	op, err := operation(f, state)
	return op, reapi.Status(err)
}

// ListOperations lists what runs and what is retained, the oldest first. Filters are not supported.
func (o *Operations) ListOperations(_ context.Context, q *longrunningpb.ListOperationsRequest) (*longrunningpb.ListOperationsResponse, error) {
	if name := strings.TrimSuffix(q.Name, "/"); name != "" && name+"/" != flight.NamePrefix {
		return nil, reapi.Status(&reapi.FieldError{Field: "name", Reason: fmt.Sprintf("%q has no operations; those of this node are below %q", q.Name, flight.NamePrefix)})
	}
	if q.Filter != "" {
		return nil, reapi.Status(&reapi.FieldError{Field: "filter", Reason: "filters are not supported"})
	}
	if q.PageSize < 0 {
		return nil, reapi.Status(&reapi.FieldError{Field: "page_size", Reason: "is negative"})
	}
	after, err := parsePage(q.PageToken)
	if err != nil {
		return nil, reapi.Status(err)
	}
	size := min(cmp.Or(int(q.PageSize), defaultPage), maxPage)
	answer := &longrunningpb.ListOperationsResponse{}
	var last page
	for _, f := range o.flights.List() {
		at := page{created: f.Created().UnixNano(), name: f.Name()}
		if at.compare(after) <= 0 {
			continue
		}
		if len(answer.Operations) == size {
			answer.NextPageToken = last.String()
			break
		}
		op, err := operation(f, f.State())
		if err != nil {
			return nil, reapi.Status(err)
		}
		answer.Operations, last = append(answer.Operations, op), at
	}
	return answer, nil
}

// page is a place in the list of operations. It stays good when the operation it names is gone.
type page struct {
	created int64 // nanoseconds of the Unix epoch
	name    string
}

func (p page) compare(q page) int {
	return cmp.Or(cmp.Compare(p.created, q.created), cmp.Compare(p.name, q.name))
}

func (p page) String() string { return strconv.FormatInt(p.created, 10) + "," + p.name }

// parsePage reads a page token; the empty one is the place before the first operation.
func parsePage(token string) (page, error) {
	if token == "" {
		return page{}, nil
	}
	created, name, found := strings.Cut(token, ",")
	n, err := strconv.ParseInt(created, 10, 64)
	if !found || err != nil {
		return page{}, &reapi.FieldError{Field: "page_token", Reason: "is not one of ours"}
	}
	return page{created: n, name: name}, nil
}
