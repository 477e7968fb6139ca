package link

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/buildmesh/buildmesh/mesh/facts"
)

// Reader tells the class of network of an interface.
type Reader interface {
	// Class is that of the interface of a name; facts.AnyNetwork when it cannot be told.
	Class(name string) facts.Network
}

// Fake is a Reader that knows what it was told.
type Fake map[string]facts.Network

// Class implements Reader.
func (f Fake) Class(name string) facts.Network { return f[name] }

// Machine is the Reader of this machine. Where the system has no /sys/class/net, as on macOS and Windows, no class
// can be told.
func Machine() Reader { return reader("/") }

// reader looks at Linux's files below a root, which tests replace by a directory of their own
// (Linux Documentation/ABI/testing/sysfs-class-net).
type reader string

// maxDepth bounds how many interfaces stand on each other, such as a VLAN on a bond on a card.
const maxDepth = 4

// Types of interfaces (Linux include/uapi/linux/if_arp.h) that are tunnels.
const (
	typePPP  = 512
	typeIPIP = 768
	typeSIT  = 776
	typeGRE  = 778
	typeNone = 0xfffe // WireGuard, tun
)

// Class implements Reader.
func (r reader) Class(name string) facts.Network { return r.class(name, maxDepth) }

// class is Class down to a depth.
func (r reader) class(name string, depth int) facts.Network {
	if name == "" || name != filepath.Base(name) || depth == 0 {
		return facts.AnyNetwork
	}
	dir := filepath.Join(string(r), "sys/class/net", name)
	switch kind := r.kind(dir); {
	case kind == "wwan":
		return facts.Metered
	case kind == "wlan" || exists(dir, "wireless") || exists(dir, "phy80211"):
		return facts.Wireless
	case kind == "wireguard" || exists(dir, "tun_flags") || tunnel(dir):
		return facts.Tunnel
	case exists(dir, "device"):
		return facts.Wired
	}
	lower, _ := filepath.Glob(filepath.Join(dir, "lower_*"))
	worst := facts.AnyNetwork
	for _, one := range lower {
		if c := r.class(strings.TrimPrefix(filepath.Base(one), "lower_"), depth-1); rank(c) > rank(worst) {
			worst = c
		}
	}
	return worst
}

// kind is the DEVTYPE the kernel gives an interface; empty for a plain card.
func (reader) kind(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "uevent"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if kind, found := strings.CutPrefix(strings.TrimSpace(line), "DEVTYPE="); found {
			return kind
		}
	}
	return ""
}

// tunnel reports that the type of an interface is one of a tunnel.
func tunnel(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "type"))
	if err != nil {
		return false
	}
	number, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return false
	}
	switch number {
	case typePPP, typeIPIP, typeSIT, typeGRE, typeNone:
		return true
	}
	return false
}

// exists reports whether an interface has a file.
func exists(dir, file string) bool {
	_, err := os.Stat(filepath.Join(dir, file))
	return err == nil
}

// rank sorts classes by how little may be asked of them.
func rank(n facts.Network) int {
	return map[facts.Network]int{facts.Wired: 1, facts.Tunnel: 2, facts.Wireless: 3, facts.Metered: 4}[n]
}
