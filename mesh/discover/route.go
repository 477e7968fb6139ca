package discover

import (
	"net"
	"net/netip"
	"slices"
)

// allowed reports whether an address lies in one of the networks; none allows all.
func allowed(a netip.Addr, networks []netip.Prefix) bool {
	return len(networks) == 0 || slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// usable lists the interfaces that are up, multicast, and have an allowed IPv4 address.
func usable(networks []netip.Prefix) ([]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []net.Interface
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 {
			continue
		}
		if slices.ContainsFunc(addressesOf(i), func(a netip.Addr) bool { return a.Is4() && allowed(a, networks) }) {
			out = append(out, i)
		}
	}
	return out, nil
}

// addressesOf lists the addresses of an interface.
func addressesOf(i net.Interface) []netip.Addr {
	nets, err := i.Addrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, n := range nets {
		if ip, ok := n.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(ip.IP); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	return out
}

// reachable lists the allowed addresses others on the link can use, and their interfaces.
func reachable(networks []netip.Prefix) ([]netip.Addr, []net.Interface) {
	interfaces, err := usable(networks)
	if err != nil {
		return nil, nil
	}
	var out []netip.Addr
	for _, i := range interfaces {
		for _, a := range addressesOf(i) {
			if !a.IsLoopback() && !a.IsLinkLocalUnicast() && allowed(a, networks) {
				out = append(out, a)
			}
		}
	}
	return out, interfaces
}

// Link is the interface whose network an address lies in, as this machine's own or a neighbour's; false: none.
func Link(a netip.Addr) (name string, found bool) {
	all, err := net.Interfaces()
	if err != nil {
		return "", false
	}
	for _, i := range all {
		nets, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue
		}
		for _, n := range nets {
			if ip, ok := n.(*net.IPNet); ok && ip.Contains(a.AsSlice()) {
				return i.Name, true
			}
		}
	}
	return "", false
}

// Toward is the address this machine has when it speaks to another one, by its routes. No packet is sent.
func Toward(to netip.Addr) (netip.Addr, bool) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	a := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	return a.WithZone(""), a.IsValid() && !a.IsUnspecified()
}

// anywhere is routed like any address and owned by nobody (TEST-NET-1, RFC 5737).
var anywhere = netip.MustParseAddr("192.0.2.1")

// Address chooses the address others reach this machine at: the one it has toward the first of those it
// wants to be reached by (seeds, members), so that with a VPN the route decides; else toward the default
// route; else any allowed one. The zero Addr: there is none.
func Address(toward []netip.Addr, networks []netip.Prefix) netip.Addr {
	local, _ := reachable(networks)
	return choose(toward, networks, local, Toward)
}

// choose is Address over given facts.
func choose(toward []netip.Addr, networks []netip.Prefix, local []netip.Addr, route func(netip.Addr) (netip.Addr, bool)) netip.Addr {
	for _, to := range append(slices.Clip(toward), anywhere) {
		from, ok := route(to)
		if ok && allowed(from, networks) && (!from.IsLoopback() || to.IsLoopback()) && !from.IsLinkLocalUnicast() {
			return from
		}
	}
	rank := func(a netip.Addr) int {
		switch {
		case a.Is4() && a.IsPrivate():
			return 0
		case a.Is4():
			return 1
		default:
			return 2
		}
	}
	best := netip.Addr{}
	for _, a := range local {
		if !best.IsValid() || rank(a) < rank(best) {
			best = a
		}
	}
	return best
}
