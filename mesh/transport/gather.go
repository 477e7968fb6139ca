package transport

import (
	"bufio"
	"net"
	"sync"
)

// gathered is a connection below TLS, which would read and write each record of 16 KiB by itself: it reads as much as has come
// at once, and writes what is written between hold and release at once. Safe for concurrent use, but that one reads at a time.
type gathered struct {
	net.Conn
	in *bufio.Reader

	mu      sync.Mutex // guards what follows, and the order of writes
	holding bool
	held    []byte
}

// gather has records of a connection gathered.
func gather(c net.Conn) *gathered { return &gathered{Conn: c, in: bufio.NewReaderSize(c, burst)} }

// Read implements net.Conn.
func (g *gathered) Read(p []byte) (int, error) { return g.in.Read(p) }

// Write implements net.Conn. It never fails while records are held.
func (g *gathered) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holding {
		g.held = append(g.held, p...)
		return len(p), nil
	}
	return g.Conn.Write(p)
}

// hold has what is written wait for release.
func (g *gathered) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = true
}

// release writes what waits.
func (g *gathered) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = false
	if len(g.held) == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.held)
	g.held = g.held[:0]
	return err
}
