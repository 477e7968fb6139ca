package wire

import (
	"context"
	"net"
	"sync"
)

// Pipe is a listener in memory. Make it with NewPipe. Unlike bufconn it starts no timers that are due at once: two goroutines
// of one synctest bubble that do so in the same moment crash the race detector (Go 1.26.8, golang/go issue 78156).
type Pipe struct {
	ends   chan net.Conn
	closed chan struct{}
	close  sync.Once
}

// NewPipe listens.
func NewPipe() *Pipe { return &Pipe{ends: make(chan net.Conn), closed: make(chan struct{})} }

// Dial connects to who accepts. Errors: net.ErrClosed, the context's.
func (p *Pipe) Dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.ends <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (p *Pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.ends:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections stay.
func (p *Pipe) Close() error {
	p.close.Do(func() { close(p.closed) })
	return nil
}

// Addr implements net.Listener.
func (p *Pipe) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
