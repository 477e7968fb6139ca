package reapi

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Observer counts calls. Methods are full gRPC names, a fixed set. Safe for concurrent use; it must
// not block.
type Observer interface {
	// Began is called when a call begins.
	Began(method string)
	// Ended is called once for each Began.
	Ended(method string, code codes.Code, took time.Duration)
}

// around is what every call passes through: panics and errors become statuses, calls are counted.
type around struct {
	observer Observer
	log      *slog.Logger
}

func (a *around) unary(ctx context.Context, q any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (r any, err error) {
	defer a.end(info.FullMethod, a.begin(info.FullMethod), &err)
	return handle(ctx, q)
}

func (a *around) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer a.end(info.FullMethod, a.begin(info.FullMethod), &err)
	return handle(srv, stream)
}

// begin tells the observer and gives the time.
func (a *around) begin(method string) time.Time {
	if a.observer == nil {
		return time.Time{}
	}
	a.observer.Began(method)
	return time.Now()
}

// end makes *err a status, after a panic too, which is logged here and nowhere else. It must be
// deferred itself for that.
func (a *around) end(method string, began time.Time, err *error) {
	if p := recover(); p != nil {
		a.log.Error("call panicked", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error, see the node's log")
	}
	*err = Status(*err)
	if a.observer != nil {
		a.observer.Ended(method, status.Code(*err), time.Since(began))
	}
}
