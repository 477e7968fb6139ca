package lab

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// BenchmarkSlowWire measures what a slow wire without delay and without bounds carries, and what the switch does: the
// first is the most that a scenario with slow wires can measure.
//
//	go test ./testnet/lab -run '^$' -bench SlowWire
func BenchmarkSlowWire(b *testing.B) {
	if err := Lacking(); err != nil {
		b.Skip(err)
	}
	l, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var nodes []*Node
	for _, name := range []string{"ana", "ben"} {
		n, err := l.Add(name, Machine{})
		if err != nil {
			b.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	var straight, wired float64
	for b.Loop() {
		straight = transfer(b, nodes[0], nodes[1])
		if err := l.Slow(Link{}, []string{"ana"}, []string{"ben"}); err != nil {
			b.Fatal(err)
		}
		wired = transfer(b, nodes[0], nodes[1])
		if err := l.Heal(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(straight, "switch-MB/s")
	b.ReportMetric(wired, "wire-MB/s")
	b.ReportMetric(wired/straight, "wire/switch")
}

// transfer sends for a second over one TCP connection and returns megabytes a second.
func transfer(b *testing.B, from, to *Node) float64 {
	b.Helper()
	var listener net.Listener
	err := to.Do(func() (err error) { listener, err = net.Listen("tcp4", ":99"); return err })
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	var (
		wait     sync.WaitGroup
		received int64
	)
	wait.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		received, _ = io.Copy(io.Discard, conn)
	})
	conn, err := from.Dial(b.Context(), "tcp4", netip.AddrPortFrom(to.Address(), 99).String())
	if err != nil {
		b.Fatal(err)
	}
	begun, block := time.Now(), make([]byte, 256<<10)
	for time.Since(begun) < time.Second {
		if _, err := conn.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	_ = conn.Close()
	wait.Wait()
	return float64(received) / 1e6 / time.Since(begun).Seconds()
}
