package discover

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

var (
	zero = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	ana  = Self{Label: "\x01\x02label", Mesh: "Haus 7", Peer: peer.ID{2}, Gossip: 7946, Hello: 8982}
)

func TestBeacon(t *testing.T) {
	want := beacon{Self: ana, ask: true}
	data := want.encode()
	for _, with := range []string{"", "and what a later version adds"} {
		got, err := decodeBeacon(append(data, with...))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for n := range data {
		if _, err := decodeBeacon(data[:n]); !errors.Is(err, ErrBeacon) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for name, b := range map[string]beacon{
		"nobody":   {Self: Self{Label: "l", Gossip: 1}},
		"no port":  {Self: Self{Label: "l", Peer: peer.ID{1}}},
		"no label": {Self: Self{Gossip: 1, Peer: peer.ID{1}}},
	} {
		if _, err := decodeBeacon(b.encode()); !errors.Is(err, ErrBeacon) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodeBeacon(append(data, make([]byte, maxBeacon)...)); !errors.Is(err, ErrBeacon) {
		t.Errorf("too long: %v", err)
	}
}

func TestClean(t *testing.T) {
	for name, want := range map[string]string{
		"Haus 7": "Haus 7", "a\x1b[31mb\n": "a[31mb", "\xff\xfe": "", "": "",
		strings.Repeat("ä", 40): strings.Repeat("ä", 24),
	} {
		if got := Clean(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestTXT(t *testing.T) {
	if got, err := parseTXT(txt(ana)); err != nil || got != ana {
		t.Errorf("%+v, %v", got, err)
	}
	for i, records := range [][]string{nil, {"v=1"}, {"v=2", "label=00"}, {"v=1", "label=zz"}, {"v=1", "label=00", "peer=x"},
		{"v=1", "label=00", "peer=" + ana.Peer.String(), "gossip=70000"}, {"v=1", "label=00", "peer=" + ana.Peer.String(), "gossip=0"}} {
		if _, err := parseTXT(records); !errors.Is(err, ErrBeacon) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// told is a find by a beacon.
func told(label string, id byte, at string) Find {
	return Find{Self: Self{Label: label, Mesh: "mesh " + label, Peer: peer.ID{id, 1}, Gossip: 7946}, Addr: netip.MustParseAddr(at), By: byBeacon}
}

func TestFinds(t *testing.T) {
	f := newFinds("own", peer.ID{9, 1})
	for i, step := range []struct {
		find    Find
		seconds int
		news    bool
	}{
		{told("own", 1, "10.0.0.1"), 0, true},
		{told("own", 1, "10.0.0.1"), 10, false}, // nothing new
		{told("own", 1, "10.0.0.2"), 11, true},  // moved
		{told("own", 1, "10.0.0.2"), 40, true},  // again, after a while
		{told("own", 9, "10.0.0.9"), 40, false}, // this node
		{told("other", 3, "10.0.0.3"), 40, false},
		{told("other", 4, "10.0.0.4"), 41, false},
	} {
		if news := f.take(step.find, zero.Add(time.Duration(step.seconds)*time.Second)); news != step.news {
			t.Errorf("step %d: news %v", i, news)
		}
	}
	now := zero.Add(42 * time.Second)
	if list := f.list(now); len(list) != 1 || list[0].Addr != netip.MustParseAddr("10.0.0.2") {
		t.Errorf("finds: %+v", list)
	}
	if s := f.listStrangers(now); len(s) != 1 || s[0].Mesh != "mesh other" || s[0].Peers != 2 {
		t.Errorf("strangers: %+v", s)
	}
	joined := told("own", 3, "10.0.0.3")
	f.take(joined, now)
	f.take(told("third", 4, "10.0.0.4"), now)
	if s := f.listStrangers(now); len(s) != 1 || s[0].Mesh != "mesh third" {
		t.Errorf("a mesh everybody has left is still seen: %+v", s)
	}
	if f.echo.IsZero() || f.others.IsZero() {
		t.Error("neither the echo nor others were heard")
	}
	if late := now.Add(fresh + time.Second); len(f.list(late)) != 0 || len(f.listStrangers(late)) != 0 {
		t.Error("what nobody tells of any more is still listed")
	}
}

// TestFlood makes up nodes and meshes.
func TestFlood(t *testing.T) {
	f := newFinds("own", peer.ID{9, 1})
	news, now := 0, zero
	for i := range 100_000 {
		if i%1000 == 0 {
			now = now.Add(time.Second)
		}
		find := told("own", 1, "10.0.0.1")
		find.Peer = peer.ID{byte(i), byte(i >> 8), byte(i >> 16), 1}
		if f.take(find, now) {
			news++
		}
		find.Label = fmt.Sprint(i)
		f.take(find, now)
		find.Label = "one"
		f.take(find, now)
	}
	strangers := 0
	for _, mesh := range f.strangers {
		strangers += len(mesh)
	}
	if news > 100*findsASecond+findsASecond || len(f.own) > maxFinds || len(f.strangers) > maxStrangers || strangers > maxFinds {
		t.Errorf("%d told, %d finds, %d meshes of %d nodes kept", news, len(f.own), len(f.strangers), strangers)
	}
}

func TestChoose(t *testing.T) {
	a := netip.MustParseAddr
	lan, vpn, lo, v6 := a("192.168.1.5"), a("10.8.0.2"), a("127.0.0.1"), a("2001:db8::5")
	seed, office := a("192.168.1.9"), a("10.8.0.1")
	routes := map[netip.Addr]netip.Addr{seed: lan, office: vpn, anywhere: lan, lo: lo}
	for name, test := range map[string]struct {
		toward   []netip.Addr
		networks string
		local    []netip.Addr
		routes   map[netip.Addr]netip.Addr
		want     netip.Addr
	}{
		"the default route":        {nil, "", nil, routes, lan},
		"toward a seed":            {[]netip.Addr{seed}, "", nil, routes, lan},
		"a seed behind a VPN":      {[]netip.Addr{office, seed}, "", nil, routes, vpn},
		"the VPN is not allowed":   {[]netip.Addr{office, seed}, "192.168.0.0/16", nil, routes, lan},
		"a seed on this machine":   {[]netip.Addr{lo}, "", nil, routes, lo},
		"no route":                 {nil, "", []netip.Addr{v6, lan}, nil, lan},
		"no route, public only":    {nil, "", []netip.Addr{v6}, nil, v6},
		"off":                      {nil, "", nil, nil, netip.Addr{}},
		"routed over loopback":     {[]netip.Addr{seed}, "", nil, map[netip.Addr]netip.Addr{seed: lo}, netip.Addr{}},
		"nothing allowed":          {nil, "172.16.0.0/12", nil, routes, netip.Addr{}},
		"link-local is no address": {nil, "", nil, map[netip.Addr]netip.Addr{anywhere: a("169.254.1.1")}, netip.Addr{}},
	} {
		var networks []netip.Prefix
		if test.networks != "" {
			networks = append(networks, netip.MustParsePrefix(test.networks))
		}
		got := choose(test.toward, networks, test.local, func(to netip.Addr) (netip.Addr, bool) {
			from, ok := test.routes[to]
			return from, ok
		})
		if got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	if from, ok := Toward(lo); !ok || from != lo {
		t.Errorf("toward loopback: %v, %v", from, ok)
	}
}

func TestLink(t *testing.T) {
	if name, found := Link(netip.MustParseAddr("127.0.0.9")); !found || name == "" {
		t.Error("loopback is no neighbourhood")
	}
	nobody := netip.MustParseAddr("240.0.0.1") // reserved (RFC 1112)
	if name, found := Link(nobody); found {
		t.Errorf("%v is on %s", nobody, name)
	}
}

func FuzzBeacon(f *testing.F) {
	f.Add(beacon{Self: ana, ask: true}.encode())
	f.Add([]byte("bms\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := decodeBeacon(data)
		if err != nil {
			if !errors.Is(err, ErrBeacon) {
				t.Errorf("%v is no ErrBeacon", err)
			}
			return
		}
		again, err := decodeBeacon(b.encode())
		if err != nil || again != b {
			t.Errorf("%+v became %+v, %v", b, again, err)
		}
		if Clean(b.Mesh) != b.Mesh {
			t.Errorf("%q is not fit to be shown", b.Mesh)
		}
	})
}

func FuzzTXT(f *testing.F) {
	f.Add(strings.Join(txt(ana), "\n"))
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseTXT(strings.Split(text, "\n"))
		if err == nil && (s.Label == "" || s.Gossip == 0) {
			t.Errorf("%+v", s)
		}
	})
}
