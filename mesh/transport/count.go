package transport

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// Traffic is the bytes of all calls with members since Open, as they went over the wire, without what carries them.
type Traffic struct{ In, Out int64 }

// Traffic tells how much was sent and received so far.
func (t *Transport) Traffic() Traffic {
	return Traffic{In: t.traffic.in.Load(), Out: t.traffic.out.Load()}
}

// counter counts what passes. It is a stats.Handler of servers and clients.
type counter struct{ in, out atomic.Int64 }

// TagRPC implements stats.Handler.
func (c *counter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (c *counter) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.InPayload:
		c.in.Add(int64(s.WireLength))
	case *stats.OutPayload:
		c.out.Add(int64(s.WireLength))
	}
}

// TagConn implements stats.Handler.
func (c *counter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (c *counter) HandleConn(context.Context, stats.ConnStats) {}
