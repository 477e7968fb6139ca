package discover

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/libp2p/zeroconf/v2"
)

const (
	// Service is the name under which nodes are told by mDNS (RFC 6763).
	Service = "_buildmesh._udp"
	domain  = "local."
	// renew is how often the service is announced anew, with the addresses of then; it bounds, too, how
	// long zeroconf remembers what strangers announce.
	renew = 5 * time.Minute
)

// mdns tells and browses until ctx ends. Where it cannot, as without a multicast interface, beacons and
// seeds have to do; it tries again.
func (d *Discover) mdns(ctx context.Context) {
	for ctx.Err() == nil {
		round, cancel := context.WithTimeout(ctx, renew)
		d.mu.Lock()
		d.renew = cancel
		d.mu.Unlock()
		d.mdnsRound(round)
		<-round.Done()
		cancel()
	}
}

// mdnsRound tells and browses until ctx ends.
func (d *Discover) mdnsRound(ctx context.Context) {
	addresses, interfaces := reachable(d.o.Allowed)
	if len(addresses) == 0 {
		return
	}
	var ips []string
	for _, a := range addresses {
		ips = append(ips, a.String())
	}
	name := "buildmesh-" + d.o.Self.Peer.Short()
	server, err := zeroconf.RegisterProxy(name, Service, domain, int(d.o.Self.Gossip), name, ips, txt(d.o.Self), interfaces)
	if err == nil {
		defer server.Shutdown()
	}
	entries, over := make(chan *zeroconf.ServiceEntry), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case e, ok := <-entries:
				if !ok {
					return
				}
				d.entry(e)
			case <-over:
				return
			}
		}
	})
	// It closes entries, but not when it could not begin; nobody writes to them once it has returned.
	_ = zeroconf.Browse(ctx, Service, domain, entries, zeroconf.SelectIfaces(interfaces))
	close(over)
	reading.Wait()
}

// entry takes in one answer.
func (d *Discover) entry(e *zeroconf.ServiceEntry) {
	self, err := parseTXT(e.Text)
	if err != nil {
		return
	}
	for _, ip := range append(e.AddrIPv4, e.AddrIPv6...) {
		addr, ok := netip.AddrFromSlice(ip)
		if addr = addr.Unmap(); ok && !addr.IsLinkLocalUnicast() && allowed(addr, d.o.Allowed) {
			d.take(Find{Self: self, Addr: addr, By: byMDNS})
			return
		}
	}
}

// txt is a Self as TXT records.
func txt(s Self) []string {
	return []string{"v=1", "label=" + hex.EncodeToString([]byte(s.Label)), "mesh=" + Clean(s.Mesh), "peer=" + s.Peer.String(),
		"gossip=" + strconv.Itoa(int(s.Gossip)), "hello=" + strconv.Itoa(int(s.Hello))}
}

// parseTXT reads TXT records. Errors wrap ErrBeacon.
func parseTXT(records []string) (Self, error) {
	var s Self
	values := make(map[string]string)
	for _, r := range records {
		if key, value, found := strings.Cut(r, "="); found && len(values) < 16 {
			values[key] = value
		}
	}
	label, err := hex.DecodeString(values["label"])
	if err != nil || len(label) == 0 || len(label) > MaxLabel || values["v"] != "1" {
		return s, fmt.Errorf("no label: %w", ErrBeacon)
	}
	if s.Peer, err = peer.Parse(values["peer"]); err != nil {
		return s, fmt.Errorf("%w: %w", err, ErrBeacon)
	}
	gossip, err := strconv.ParseUint(values["gossip"], 10, 16)
	if err != nil || gossip == 0 {
		return s, fmt.Errorf("no gossip port: %w", ErrBeacon)
	}
	hello, _ := strconv.ParseUint(values["hello"], 10, 16) // absent: not told
	s.Label, s.Mesh, s.Gossip, s.Hello = string(label), Clean(values["mesh"]), uint16(gossip), uint16(hello)
	return s, nil
}
