package transport

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// opened is the set of bulk connections that are open, by peer.
type opened struct {
	mu    sync.Mutex
	conns map[peer.ID]map[*tracked]bool // guarded by mu
}

// tracked is a connection that tells when it was closed.
type tracked struct {
	net.Conn
	records *gathered // what Conn writes them to
	sipped  int       // read since others could run; who reads has it, one at a time
	closed  chan struct{}
	once    sync.Once
	onEnd   func()
}

// Close implements net.Conn.
func (t *tracked) Close() error {
	t.once.Do(func() {
		close(t.closed)
		t.onEnd()
	})
	return t.Conn.Close()
}

// burst is how much of a transfer is written before others may run.
const burst = 64 << 10

// Write implements net.Conn. On a machine whose processors are all taken by transfers, whoever makes or answers a small
// call would wait for the whole of what gRPC has to send, some milliseconds for each of the goroutines a call passes.
func (t *tracked) Write(p []byte) (int, error) {
	done := 0
	for {
		t.records.hold()
		n, err := t.Conn.Write(p[done:min(len(p), done+burst)])
		if failed := t.records.release(); failed != nil {
			n, err = 0, failed
		}
		done += n
		runtime.Gosched()
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// unbuffered has gRPC read frames straight into the buffers their messages are made of. What is below gathers already, TLS records
// or a stream's frames, and a buffer between would be one more copy of all content.
const unbuffered = 0

// sip is how much is read before others may run: a TLS record.
const sip = 16 << 10

// Read implements net.Conn, and lets others run as Write does, but not after each of the few bytes that stand before a frame.
func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if t.sipped += n; t.sipped >= sip {
		t.sipped = 0
		runtime.Gosched()
	}
	return n, err
}

// track adds a connection until it is closed.
func (o *opened) track(id peer.ID, conn *tls.Conn) *tracked {
	t := &tracked{Conn: conn, records: conn.NetConn().(*gathered), closed: make(chan struct{})}
	t.onEnd = func() { o.untrack(id, t) }
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conns == nil {
		o.conns = make(map[peer.ID]map[*tracked]bool)
	}
	if o.conns[id] == nil {
		o.conns[id] = make(map[*tracked]bool)
	}
	o.conns[id][t] = true
	return t
}

// untrack forgets a connection.
func (o *opened) untrack(id peer.ID, t *tracked) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.conns[id], t)
	if len(o.conns[id]) == 0 {
		delete(o.conns, id)
	}
}

// close closes the connections of one peer, or of all with the zero id.
func (o *opened) close(id peer.ID) {
	o.mu.Lock()
	var closing []*tracked
	for owner, conns := range o.conns {
		for t := range conns {
			if id.IsZero() || owner == id {
				closing = append(closing, t)
			}
		}
	}
	o.mu.Unlock()
	for _, t := range closing {
		t.Close()
	}
}
