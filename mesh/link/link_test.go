package link

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/buildmesh/buildmesh/mesh/facts"
)

// TestClass looks at the interfaces of a made-up machine, as the kernel shows them.
func TestClass(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{
		"eth0/uevent": "INTERFACE=eth0\nIFINDEX=2\n", "eth0/type": "1\n", "eth0/device/vendor": "0x8086\n",
		"wlan0/uevent": "DEVTYPE=wlan\nINTERFACE=wlan0\n", "wlan0/type": "1\n", "wlan0/device/vendor": "0x8086\n",
		"old0/wireless/status": "0\n", "old0/type": "1\n", "old0/device/vendor": "0x8086\n",
		"wwan0/uevent": "DEVTYPE=wwan\nINTERFACE=wwan0\n", "wwan0/type": "65534\n", "wwan0/device/vendor": "0x1199\n",
		"wg0/uevent": "DEVTYPE=wireguard\nINTERFACE=wg0\n", "wg0/type": "65534\n",
		"tun0/type": "65534\n", "tun0/tun_flags": "0x1001\n", "tap0/type": "1\n", "tap0/tun_flags": "0x1002\n",
		"ppp0/type": "512\n", "lo/type": "772\n", "veth0/type": "1\n", "broken/type": "what\n",
		"br0/uevent": "DEVTYPE=bridge\n", "br0/type": "1\n", "br0/lower_eth0/x": "", "br0/lower_veth0/x": "",
		"mixed0/type": "1\n", "mixed0/lower_eth0/x": "", "mixed0/lower_wlan0/x": "",
		"vlan7/uevent": "DEVTYPE=vlan\n", "vlan7/lower_br0/x": "",
		"round0/lower_round1/x": "", "round1/lower_round0/x": "",
	} {
		path := filepath.Join(root, "sys/class/net", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]facts.Network{
		"eth0": facts.Wired, "wlan0": facts.Wireless, "old0": facts.Wireless, "wwan0": facts.Metered, "wg0": facts.Tunnel,
		"tun0": facts.Tunnel, "tap0": facts.Tunnel, "ppp0": facts.Tunnel, "lo": facts.AnyNetwork, "veth0": facts.AnyNetwork,
		"broken": facts.AnyNetwork, "br0": facts.Wired, "mixed0": facts.Wireless, "vlan7": facts.Wired, "round0": facts.AnyNetwork,
		"gone": facts.AnyNetwork, "": facts.AnyNetwork, "../net/eth0": facts.AnyNetwork,
	} {
		if got := reader(root).Class(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestMachine asks this machine: whatever it has, loopback is no network.
func TestMachine(t *testing.T) {
	if got := Machine().Class("lo"); got != facts.AnyNetwork {
		t.Errorf("loopback is %q", got)
	}
}
