package reapi

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/bot"
	"github.com/buildmesh/buildmesh/exec/collect"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/image"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/exec/run"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/exec/slot"
	"github.com/buildmesh/buildmesh/node/logstream"
)

// transientRetry is when a client should come back to a node that is full or shutting down.
const transientRetry = time.Second

// sentinels is the part of the table for errors that carry nothing but their kind, in the order in
// which they are tried.
var sentinels = []struct {
	err  error
	code codes.Code
}{
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{digest.ErrInvalid, codes.InvalidArgument},
	{digest.ErrUnsupported, codes.InvalidArgument},
	{cas.ErrNotFound, codes.NotFound},
	{flight.ErrNotCached, codes.NotFound},
	// Stored content that turned out damaged is as good as gone: the client makes it again.
	// Damaged content in an upload is a *FieldError instead.
	{cas.ErrCorrupt, codes.NotFound},
	{cas.ErrTooLarge, codes.InvalidArgument},
	{cas.ErrFull, codes.ResourceExhausted},
	{collect.ErrTooLarge, codes.ResourceExhausted},
	{sandbox.ErrNoSandbox, codes.FailedPrecondition},
	{logstream.ErrNotFound, codes.NotFound},
	{logstream.ErrName, codes.InvalidArgument},
	{logstream.ErrOffset, codes.OutOfRange},
	{logstream.ErrFinal, codes.FailedPrecondition},
	{logstream.ErrFull, codes.ResourceExhausted},
}

// Status gives the gRPC status of err as an error: the one place where codes are chosen. nil stays
// nil, and an error that already has a status keeps it. Details are attached where clients act on
// them: PreconditionFailure with every missing blob, BadRequest with the field, RetryInfo when the
// fault is transient. An error of unknown kind is Internal.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if s := typedStatus(err); s != nil {
		return s.Err()
	}
	for _, known := range sentinels {
		if errors.Is(err, known.err) {
			return status.Error(known.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}

// missStatus is the row of the table for an action result that is not there. It is the commonest answer
// of all, and looking through the whole table for it took longer than the look-up itself.
func missStatus(err error) error { return status.Error(codes.NotFound, err.Error()) }

// typedStatus is the part of the table for errors that carry more than their kind; nil for others.
func typedStatus(err error) *status.Status {
	var (
		field   *FieldError
		retry   *RetryError
		outside *RangeError
		denied  *DeniedError
	)
	switch {
	case errors.As(err, &field):
		return detailed(codes.InvalidArgument, err, badRequest(field.Field, field.Reason))
	case errors.As(err, &retry):
		return detailed(codes.Unavailable, err, retryInfo(retry.After))
	case errors.As(err, &outside):
		return status.New(codes.OutOfRange, err.Error())
	case errors.As(err, &denied):
		return status.New(codes.PermissionDenied, err.Error())
	case errors.Is(err, flight.ErrFull):
		return detailed(codes.ResourceExhausted, err, retryInfo(transientRetry))
	case errors.Is(err, cas.ErrClosed), errors.Is(err, flight.ErrClosed), errors.Is(err, run.ErrClosed):
		return detailed(codes.Unavailable, err, retryInfo(transientRetry))
	}
	return executionStatus(err)
}

// executionStatus is the part of the table for what can be wrong with an action, its inputs, its
// outputs and what it uses.
func executionStatus(err error) *status.Status {
	var (
		missing     *action.MissingError
		directories *tree.MissingError
		field       *action.InvalidError
		value       *platform.InvalidError
		unsupported *action.UnsupportedError
		large       *slot.TooLargeError
		inputs      *tree.InvalidError
		program     *sandbox.CommandError
		output      *collect.OutputError
		resource    *run.ResourceError
		container   *image.Error
		gone        *bot.UnavailableError
		unavailable *place.UnavailableError
		memory      *place.MemoryError
		failure     *bot.FailureError
	)
	switch {
	case errors.As(err, &container):
		return imageStatus(err, container)
	case errors.As(err, &gone), errors.Is(err, bot.ErrClosed), errors.Is(err, bot.ErrFull):
		return detailed(codes.Unavailable, err, retryInfo(transientRetry))
	case errors.As(err, &unavailable):
		return detailed(codes.Unavailable, err, retryInfo(unavailable.After))
	case errors.As(err, &memory):
		return status.New(codes.ResourceExhausted, err.Error())
	case errors.As(err, &failure):
		return status.New(failure.Code, err.Error())
	case errors.Is(err, bot.ErrSuperseded):
		return status.New(codes.Aborted, err.Error())
	case errors.As(err, &missing):
		return detailed(codes.FailedPrecondition, err, preconditionFailure(missing.Digests))
	case errors.As(err, &directories):
		return detailed(codes.FailedPrecondition, err, preconditionFailure(directories.Digests))
	case errors.As(err, &field):
		return detailed(codes.InvalidArgument, err, badRequest(field.Field, field.Reason))
	case errors.As(err, &value):
		return detailed(codes.InvalidArgument, err, badRequest("platform.properties", value.Error()))
	case errors.As(err, &unsupported):
		return detailed(codes.FailedPrecondition, err, unmet(unsupported.Property, unsupported.Err.Error()))
	case errors.As(err, &large):
		return detailed(codes.FailedPrecondition, err, unmet(large.Property, large.Error()))
	case errors.As(err, &inputs):
		return detailed(codes.InvalidArgument, err, badRequest("input_root_digest", inputs.Error()))
	case errors.As(err, &program):
		return detailed(codes.InvalidArgument, err, badRequest("arguments[0]", program.Error()))
	case errors.As(err, &output):
		return status.New(codes.FailedPrecondition, err.Error())
	case errors.As(err, &resource):
		return status.New(codes.ResourceExhausted, err.Error())
	}
	return nil
}

// imageStatus is the part of the table for container images. What is neither the reference's fault nor
// the registry's lies in the image: no executor will ever run it.
func imageStatus(err error, e *image.Error) *status.Status {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil
	case errors.Is(err, image.ErrReference), errors.Is(err, image.ErrFloating):
		return detailed(codes.InvalidArgument, err, badRequest("platform.container-image", e.Error()))
	case errors.Is(err, image.ErrUnreachable), errors.Is(err, image.ErrClosed):
		return detailed(codes.Unavailable, err, retryInfo(transientRetry))
	}
	for _, known := range []error{image.ErrForbidden, image.ErrNotFound, image.ErrCorrupt, image.ErrTooLarge, image.ErrUnsuitable} {
		if errors.Is(err, known) {
			return detailed(codes.FailedPrecondition, err, unmet("container-image", e.Error()))
		}
	}
	return nil
}

// detailed makes a status with one detail message.
func detailed(code codes.Code, err error, detail protoadapt.MessageV1) *status.Status {
	plain := status.New(code, err.Error())
	if s, err := plain.WithDetails(detail); err == nil {
		return s
	}
	return plain
}

// preconditionFailure has a violation of type MISSING for each digest, as the protocol's Execute wants.
func preconditionFailure(ds []digest.Digest) *errdetails.PreconditionFailure {
	p := &errdetails.PreconditionFailure{Violations: make([]*errdetails.PreconditionFailure_Violation, len(ds))}
	for i, d := range ds {
		p.Violations[i] = &errdetails.PreconditionFailure_Violation{Type: "MISSING", Subject: BlobName(d)}
	}
	return p
}

// unmet names a platform property that nothing here fulfils. Its type differs from MISSING, which
// clients answer by uploading and trying again.
func unmet(property, reason string) *errdetails.PreconditionFailure {
	return &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
		{Type: "PLATFORM", Subject: property, Description: reason},
	}}
}

func badRequest(field, reason string) *errdetails.BadRequest {
	return &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: field, Description: reason},
	}}
}

func retryInfo(after time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(after)}
}
