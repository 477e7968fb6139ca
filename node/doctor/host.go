package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/buildmesh/buildmesh/node/config"
	"github.com/buildmesh/buildmesh/node/human"
)

// Host is what the checks of a machine are made from.
type Host struct {
	Config  *config.Config
	Running bool // a node with this configuration runs: its ports are taken by right
	// Sandbox runs one complete sandbox, or tells what an earlier run found. Nil: no actions here.
	Sandbox func(ctx context.Context) []Finding
	// Fingerprint computes the host fingerprint and tells how it is made up. Nil: not checked.
	Fingerprint func(ctx context.Context) []Finding
	// Company is the mesh as the running node knows it. Nil: no node runs, or it stands alone.
	Company *Company
	// Address is where others would reach a node that were started now; it is not asked beside a Company. Nil: not checked.
	Address func() netip.Addr
	// Echo sends to the group of the beacons and waits to hear itself. It is asked where Address is. Nil: not checked.
	Echo func(ctx context.Context) error
}

// Checks lists the checks of h, roots first.
func (h Host) Checks() []Check {
	dir := &h.Config.Dir
	checks := []Check{
		one("state directory", nil, func() Finding { return writable(dir.State, "dir.state") }),
		one("cache directory", nil, func() Finding { return writable(dir.Cache, "dir.cache") }),
		one("runtime directory", nil, func() Finding { return runtimeDir(dir.Runtime) }),
		one("free disk", []string{"cache directory"}, func() Finding { return h.disk() }),
		one("remote execution port", nil, func() Finding { return h.port("listen.grpc", "--listen", h.Config.Listen.GRPC) }),
		one("web port", nil, func() Finding { return h.port("listen.web", "--web", h.Config.Listen.Web) }),
		one("mesh ports", nil, h.meshPorts),
		one("clock", []string{"cache directory"}, func() Finding { return clock(dir.Cache, time.Now) }),
		one("open files", nil, openFiles),
	}
	if h.Company != nil {
		checks = append(checks, h.Company.checks()...)
	} else if h.Address != nil && h.Config.Mesh.Enabled {
		checks = append(checks, one("mesh address", nil, h.start))
		if h.Echo != nil {
			checks = append(checks, Check{"multicast", []string{"mesh address"}, h.multicast})
		}
	}
	if !h.Config.Exec.Enabled {
		return checks
	}
	checks = append(checks, systemChecks()...)
	if h.Sandbox != nil {
		checks = append(checks, Check{"sandbox", append(systemRoots(), "cache directory"), h.Sandbox})
	}
	if h.Fingerprint != nil {
		checks = append(checks, Check{"fingerprint", nil, h.Fingerprint})
	}
	return checks
}

// existing is the nearest directory at or above path that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// writable tries to make a file in dir or, when dir is not there yet, in what it will be made in.
func writable(dir, key string) Finding {
	place := existing(dir)
	file, err := os.CreateTemp(place, ".buildmesh-doctor-*")
	if err != nil {
		return failed(fmt.Sprintf("sudo chown -R %d %s, or choose another with --set %s=DIR", os.Getuid(), place, key),
			"cannot write into %s: %v", place, reason(err))
	}
	file.Close()
	os.Remove(file.Name())
	if place != dir {
		return ok("%s will be made at the first start", dir)
	}
	return ok("%s can be written", dir)
}

// reason is the system's word for an error, without the path that is told beside it.
func reason(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// runtimeDir is writable and nobody else's to enter.
func runtimeDir(dir string) Finding {
	if f := writable(dir, "dir.runtime"); f.Verdict != OK {
		return f
	}
	info, err := os.Stat(dir)
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		return failed("chmod 700 "+dir, "%s can be written by others, who could put a socket of theirs in place of the node's", dir)
	}
	return ok("%s holds the sockets", dir)
}

// disk judges the free disk against what the store leaves to others.
func (h Host) disk() Finding {
	place := existing(h.Config.Dir.Cache)
	free, total, err := diskSpace(place)
	if err != nil {
		return warning("df -h "+place, "free disk of %s is not known: %v", place, err)
	}
	const fix = "free some disk, or keep the cache elsewhere with --set dir.cache=DIR"
	left := int64(h.Config.Store.MinFree)
	if left == 0 {
		left = min(2<<30, total/20)
	}
	switch {
	case free < left:
		return failed(fix, "%s of %s free, less than the %s the store leaves to others: nothing can be stored",
			human.Bytes(free), human.Bytes(total), human.Bytes(left))
	case free < left+5<<30:
		return warning(fix, "%s of %s free: the cache will stay small", human.Bytes(free), human.Bytes(total))
	}
	return ok("%s of %s free", human.Bytes(free), human.Bytes(total))
}

// port judges whether the address can be listened on.
func (h Host) port(key, flag, address string) Finding {
	if address == "" {
		return ok("off")
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return failed(fmt.Sprintf("write it as host:port: %s 127.0.0.1:8980", flag), "%s = %q: %v", key, address, err)
	}
	if h.Running {
		return openness(key, flag, host, fmt.Sprintf("%s is this node's", address))
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		if who := Holder(address); who != "" {
			return failed(fmt.Sprintf("stop it, or choose another port with %s HOST:PORT", flag), "%s is taken by %s", address, who)
		}
		return failed(fmt.Sprintf("choose another with %s HOST:PORT", flag), "%s: %v", address, err)
	}
	listener.Close()
	return openness(key, flag, host, address+" is free")
}

// start judges the address a node would begin with.
func (h Host) start() Finding {
	a := h.Address()
	if f := (&Company{Address: netip.AddrPortFrom(a, 0), Networks: h.Config.Mesh.Networks}).address(); f.Verdict != OK {
		f.Verdict = Warning // alone, a node works all the same
		return f
	}
	return ok("others would reach this machine at %v", a)
}

// multicast judges whether a node that were started now could be found, and find others.
func (h Host) multicast(ctx context.Context) []Finding {
	switch {
	case !h.Config.Mesh.Discover:
		return []Finding{ok(discoverOff)}
	case !h.Address().IsValid():
		return []Finding{ok("not tried without a mesh address")}
	}
	if err := h.Echo(ctx); err != nil {
		return []Finding{warning(fixMulticast, deaf, err)}
	}
	return []Finding{ok("this machine hears what it sends to others nearby")}
}

// meshPorts judges whether members can be listened for. A port of the defaults that is taken is replaced by any other.
func (h Host) meshPorts() Finding {
	if !h.Config.Mesh.Enabled {
		return ok("off: mesh.enabled = false")
	}
	if h.Company != nil {
		return ok("%v and, for gossip, %v are this node's", h.Company.Members, h.Company.Address)
	}
	for _, port := range []struct{ key, address string }{{"listen.mesh", h.Config.Listen.Mesh}, {"listen.gossip", h.Config.Listen.Gossip}} {
		listener, err := net.Listen("tcp", port.address)
		if err == nil {
			listener.Close()
			continue
		}
		if h.Config.Origin(port.key).Kind == config.Default {
			return ok("%s is taken; the node will choose another", port.address)
		}
		return failed(fmt.Sprintf("choose another with --set %s=IP:PORT", port.key), "%s: %v", port.key, err)
	}
	return ok("%s and, for gossip, %s are free", h.Config.Listen.Mesh, h.Config.Listen.Gossip)
}

// openness refuses an endpoint without a password that others can reach, as the node itself does.
func openness(key, flag, host, fact string) Finding {
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return ok("%s", fact)
	}
	return failed(flag+" 127.0.0.1:PORT",
		"%s, but %s is no loopback address: everyone who reaches it could use the node without a password", fact, key)
}

// clock compares the clock with the calendar and with the file system's.
func clock(dir string, now func() time.Time) Finding {
	const fix = "timedatectl set-ntp true"
	today := now()
	if year := today.Year(); year < 2026 || year > 2100 {
		return failed(fix, "the clock says %s", today.Format(time.DateOnly))
	}
	file, err := os.CreateTemp(existing(dir), ".buildmesh-doctor-*")
	if err != nil {
		return warning(fix, "the file system's clock is not known: %v", reason(err))
	}
	defer os.Remove(file.Name())
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return warning(fix, "the file system's clock is not known: %v", reason(err))
	}
	if off := info.ModTime().Sub(today).Abs(); off > 5*time.Second {
		return warning(fix, "the clock and that of %s differ by %s", dir, off.Round(time.Second))
	}
	return ok("%s", today.Format("2006-01-02 15:04:05 MST"))
}
