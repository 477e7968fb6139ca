package reapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/collect"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/exec/run"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/exec/slot"
)

func TestStatusCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{errors.New("surprise"), codes.Internal},
		{status.Error(codes.Aborted, "as it was"), codes.Aborted},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{digest.ErrInvalid, codes.InvalidArgument},
		{digest.ErrUnsupported, codes.InvalidArgument},
		{cas.ErrNotFound, codes.NotFound},
		{cas.ErrCorrupt, codes.NotFound},
		{cas.ErrTooLarge, codes.InvalidArgument},
		{cas.ErrFull, codes.ResourceExhausted},
		{cas.ErrClosed, codes.Unavailable},
		{&FieldError{Field: "x", Reason: "y"}, codes.InvalidArgument},
		{&action.MissingError{Digests: []digest.Digest{abc}}, codes.FailedPrecondition},
		{&tree.MissingError{Digests: []digest.Digest{abc}}, codes.FailedPrecondition},
		{&action.InvalidError{Field: "timeout", Reason: "is negative"}, codes.InvalidArgument},
		{&action.UnsupportedError{Property: "gpu", Err: errors.New("no gpu")}, codes.FailedPrecondition},
		{&action.UnsupportedError{Property: "cores", Err: &platform.InvalidError{Property: "cores", Value: "x"}}, codes.InvalidArgument},
		{&slot.TooLargeError{Property: "cores", Asked: "9", Capacity: "2"}, codes.FailedPrecondition},
		{&tree.InvalidError{Path: "a/..", Reason: "unsafe name"}, codes.InvalidArgument},
		{&sandbox.CommandError{Program: "cc", Err: errors.New("not found")}, codes.InvalidArgument},
		{&collect.OutputError{Path: "out", Reason: "is a socket"}, codes.FailedPrecondition},
		{&run.ResourceError{Resource: run.Memory}, codes.ResourceExhausted},
		{&run.TimeoutError{Timeout: time.Second}, codes.DeadlineExceeded},
		{&flight.PanicError{Value: "x"}, codes.Internal},
		{collect.ErrTooLarge, codes.ResourceExhausted},
		{sandbox.ErrNoSandbox, codes.FailedPrecondition},
		{flight.ErrNotCached, codes.NotFound},
		{flight.ErrFull, codes.ResourceExhausted},
		{flight.ErrClosed, codes.Unavailable},
		{flight.ErrCancelled, codes.Canceled},
		{run.ErrClosed, codes.Unavailable},
		{&DeniedError{Reason: "read-only"}, codes.PermissionDenied},
		{&RetryError{After: time.Second, Reason: "peer left"}, codes.Unavailable},
		{&RangeError{Offset: 4, Size: 3}, codes.OutOfRange},
	} {
		if got := status.Code(Status(c.err)); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
		if c.err != nil {
			if got := status.Code(Status(fmt.Errorf("do this: %w", c.err))); got != c.want {
				t.Errorf("wrapped %v: %s, want %s", c.err, got, c.want)
			}
		}
	}
}

func TestStatusDetails(t *testing.T) {
	b := blake(t, "abc")
	missing := detail[*errdetails.PreconditionFailure](t, &action.MissingError{Digests: []digest.Digest{abc, b}})
	if len(missing.Violations) != 2 {
		t.Fatalf("%d violations for 2 missing blobs", len(missing.Violations))
	}
	for i, want := range []string{"blobs/" + abcHash + "/3", "blobs/blake3/" + b.Hex() + "/3"} {
		if v := missing.Violations[i]; v.Type != "MISSING" || v.Subject != want {
			t.Errorf("violation %d: %v", i, v)
		}
	}
	bad := detail[*errdetails.BadRequest](t, fmt.Errorf("wrapped: %w", &FieldError{Field: "digest.hash", Reason: "short"}))
	if v := bad.FieldViolations; len(v) != 1 || v[0].Field != "digest.hash" || v[0].Description != "short" {
		t.Errorf("violations %v", v)
	}
	if retry := detail[*errdetails.RetryInfo](t, &RetryError{After: 3 * time.Second}); retry.RetryDelay.AsDuration() != 3*time.Second {
		t.Errorf("retry after %v", retry.RetryDelay)
	}
	unmet := detail[*errdetails.PreconditionFailure](t, &action.UnsupportedError{Property: "gpu", Err: errors.New("no gpu")})
	if v := unmet.Violations; len(v) != 1 || v[0].Subject != "gpu" || v[0].Type == "MISSING" {
		t.Errorf("violations %v", v)
	}
	detail[*errdetails.RetryInfo](t, flight.ErrFull)
	if retry := detail[*errdetails.RetryInfo](t, cas.ErrClosed); retry.RetryDelay.AsDuration() <= 0 {
		t.Errorf("closing node: retry after %v", retry.RetryDelay)
	}
}

// detail gives the only detail of err's status.
func detail[T any](t *testing.T, err error) T {
	t.Helper()
	details := status.Convert(Status(err)).Details()
	if len(details) != 1 {
		t.Fatalf("%v: %d details", err, len(details))
	}
	d, ok := details[0].(T)
	if !ok {
		t.Fatalf("%v: detail is %T", err, details[0])
	}
	return d
}

func TestMetadataFrom(t *testing.T) {
	header, err := proto.Marshal(&repb.RequestMetadata{
		ToolDetails: &repb.ToolDetails{ToolName: "bazel", ToolVersion: "7.7.1"}, ToolInvocationId: "inv",
		CorrelatedInvocationsId: "cor", ActionId: "act", ActionMnemonic: "CppCompile", ConfigurationId: strings.Repeat("c", maxMetadataField-1) + "\u00fc",
		TargetId: strings.Repeat("t", 2*maxMetadataField),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Metadata{
		Tool: "bazel", ToolVersion: "7.7.1", Invocation: "inv", Correlated: "cor", ActionID: "act",
		Mnemonic: "CppCompile", Configuration: strings.Repeat("c", maxMetadataField-1), Target: strings.Repeat("t", maxMetadataField),
	}
	with := func(header string) context.Context {
		return metadata.NewIncomingContext(t.Context(), metadata.Pairs(metadataHeader, header))
	}
	if got := MetadataFrom(with(string(header))); got != want {
		t.Errorf("%+v", got)
	}
	if got := MetadataFrom(with("\xff\xff")); got != (Metadata{}) {
		t.Errorf("malformed: %+v", got)
	}
	if got := MetadataFrom(t.Context()); got != (Metadata{}) {
		t.Errorf("none: %+v", got)
	}
}
