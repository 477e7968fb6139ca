package lab

import (
	"maps"
	"net/netip"
	"sync"
)

// Flow is everything that is sent from one address to another, over TCP or else UDP.
type Flow struct {
	TCP      bool
	From, To netip.AddrPort
}

// Traffic is how much that is: packets that carry something, and the bytes they carry.
type Traffic struct{ Packets, Bytes int64 }

// Crossed is what machines have sent to other groups over slow wires since the lab was made, what was lost there included.
func (l *Lab) Crossed() map[Flow]Traffic { return l.network.crossed.all() }

// traffic counts packets by their flow. Safe for concurrent use.
type traffic struct {
	mu sync.Mutex // guards of
	of map[Flow]Traffic
}

func newTraffic() *traffic { return &traffic{of: map[Flow]Traffic{}} }

// all gives a copy.
func (t *traffic) all() map[Flow]Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.of)
}

// note counts an Ethernet frame, if it is of a flow.
func (t *traffic) note(frame []byte) {
	flow, size, ok := parseFlow(frame)
	if !ok || size == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.of[flow]
	t.of[flow] = Traffic{sum.Packets + 1, sum.Bytes + int64(size)}
}

// parseFlow reads the headers of Ethernet, IPv4 (RFC 791) and TCP or UDP, and gives how many bytes come after them.
func parseFlow(frame []byte) (f Flow, size int, ok bool) {
	const ethernet, leastIP, leastUDP, leastTCP, tcp, udp = 14, 20, 8, 20, 6, 17
	if len(frame) < ethernet+leastIP || uint16At(frame, 12) != 0x0800 {
		return f, 0, false
	}
	ip := frame[ethernet:]
	header, total := 4*int(ip[0]&15), int(uint16At(ip, 2))
	if header < leastIP || total < header+leastUDP || len(ip) < total {
		return f, 0, false
	}
	carried := ip[header:total]
	switch {
	case ip[9] == udp:
		size = len(carried) - leastUDP
	case ip[9] == tcp && len(carried) >= leastTCP:
		f.TCP, size = true, len(carried)-4*int(carried[12]>>4)
	default:
		return f, 0, false
	}
	at := func(address, port []byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(address)), uint16At(port, 0))
	}
	f.From, f.To = at(ip[12:16], carried), at(ip[16:20], carried[2:])
	return f, size, size >= 0
}

// uint16At reads a number in network order.
func uint16At(b []byte, at int) uint16 { return uint16(b[at])<<8 | uint16(b[at+1]) }
