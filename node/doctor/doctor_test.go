package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/node/config"
)

// fixed is a check that finds f.
func fixed(name string, f Finding, needs ...string) Check {
	return one(name, needs, func() Finding { return f })
}

// names lists what was found, as "check:verdict".
func names(results []Result) string {
	var out []string
	for _, r := range results {
		out = append(out, r.Check+":"+r.Verdict.String())
	}
	return strings.Join(out, " ")
}

func TestRun(t *testing.T) {
	bad, fine, poor := failed("mend", "broken"), ok("fine"), warning("tune", "slow")
	for want, checks := range map[string][]Check{
		"a:ok b:ok":         {fixed("a", fine), fixed("b", fine, "a")},
		"a:failed":          {fixed("a", bad), fixed("b", fine, "a"), fixed("c", fine, "b")},
		"a:warning b:ok":    {fixed("a", poor), fixed("b", fine, "a")},
		"a:failed x:ok":     {fixed("a", bad), fixed("x", fine), fixed("b", fine, "x", "a")},
		"a:failed x:failed": {fixed("a", bad), fixed("x", bad)},
		"a:ok a:failed":     {{"a", nil, func(context.Context) []Finding { return []Finding{fine, bad} }}, fixed("b", fine, "a")},
	} {
		if got := names(Run(t.Context(), checks)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if Worst(Run(t.Context(), []Check{fixed("a", poor), fixed("b", fine)})) != Warning || Worst(nil) != OK {
		t.Error("Worst is wrong")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stop := Check{"a", nil, func(context.Context) []Finding { cancel(); return []Finding{ok("fine")} }}
	results := Run(ctx, []Check{stop, fixed("b", ok("fine"))})
	if names(results) != "a:ok b:warning" || !strings.Contains(results[1].Fact, "not checked") {
		t.Errorf("got %v", results)
	}
}

func TestRunRefusesUnknownNeeds(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a need nobody meets went unnoticed")
		}
	}()
	Run(t.Context(), []Check{fixed("a", ok("fine"), "later"), fixed("later", ok("fine"))})
}

// settled is a configuration that keeps everything in a new directory and listens nowhere.
func settled(t *testing.T, more ...config.Setting) *config.Config {
	t.Helper()
	base := []config.Setting{{Key: "dir.base", Value: t.TempDir()}, {Key: "listen.grpc", Value: "off"}, {Key: "listen.web", Value: "off"}}
	c, err := config.Load(config.Source{Settings: append(base, more...)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestHost runs the checks on this machine: whatever they find, every fault has a fix and nothing is
// left behind.
func TestHost(t *testing.T) {
	c := settled(t)
	asked := false
	host := Host{Config: c, Sandbox: func(context.Context) []Finding {
		asked = true
		return []Finding{ok("tier A")}
	}}
	results := Run(t.Context(), host.Checks())
	if len(results) < 8 {
		t.Errorf("only %d results: %v", len(results), results)
	}
	failedRoot := false
	for _, r := range results {
		if (r.Verdict == OK) != (r.Fix == "") || r.Fact == "" || strings.HasSuffix(r.Fact, ".") {
			t.Errorf("%+v: a fix goes with what is not ok", r)
		}
		failedRoot = failedRoot || r.Check == "user namespaces" && r.Verdict == Failed
	}
	if asked == failedRoot {
		t.Errorf("sandbox asked %v, its root failed %v", asked, failedRoot)
	}
	if left, _ := os.ReadDir(c.Dir.Base); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	c.Exec.Enabled = false
	if got := names(Run(t.Context(), host.Checks())); strings.Contains(got, "sandbox") {
		t.Errorf("a cache only needs no sandbox: %s", got)
	}
}

func TestWritable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f := writable(dir, "k"); f.Verdict != OK || !strings.Contains(f.Fact, "can be written") {
		t.Errorf("%+v", f)
	}
	if f := writable(filepath.Join(dir, "a", "b"), "k"); f.Verdict != OK || !strings.Contains(f.Fact, "will be made") {
		t.Errorf("%+v", f)
	}
	if f := writable(file, "dir.x"); f.Verdict != Failed || !strings.Contains(f.Fix, "--set dir.x=DIR") {
		t.Errorf("a file in place of the directory: %+v", f)
	}
}

func TestRuntimeDir(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if f := runtimeDir(dir); f.Verdict != Failed || f.Fix != "chmod 700 "+dir {
		t.Errorf("%+v", f)
	}
}

func TestDisk(t *testing.T) {
	c := settled(t)
	c.Store.MinFree = 1 << 60
	f := Host{Config: c}.disk()
	if f.Verdict == OK || f.Fix == "" {
		t.Errorf("a disk smaller than what must stay free: %+v", f)
	}
}

func TestPort(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := listener.Addr().String()
	for _, test := range []struct {
		address string
		running bool
		verdict Verdict
		fact    string
	}{
		{"", false, OK, "off"},
		{"127.0.0.1:0", false, OK, "is free"},
		{taken, false, Failed, taken},
		{taken, true, OK, "this node's"},
		{"0.0.0.0:0", false, Failed, "without a password"},
		{"8980", false, Failed, "missing port"},
	} {
		f := Host{Config: settled(t), Running: test.running}.port("listen.grpc", "--listen", test.address)
		if f.Verdict != test.verdict || !strings.Contains(f.Fact, test.fact) {
			t.Errorf("%q: %+v, want %v and %q", test.address, f, test.verdict, test.fact)
		}
	}
}

func TestClock(t *testing.T) {
	dir := t.TempDir()
	at := func(t time.Time) func() time.Time { return func() time.Time { return t } }
	for _, test := range []struct {
		now  time.Time
		want Verdict
	}{
		{time.Now(), OK},
		{time.Now().Add(time.Hour), Warning},
		{time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), Failed},
	} {
		if f := clock(dir, at(test.now)); f.Verdict != test.want {
			t.Errorf("at %v: %+v, want %v", test.now, f, test.want)
		}
	}
}

// TestStart judges the address of a machine on which no node runs.
func TestStart(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.2": "others would reach this machine at 10.0.0.2", "": "this machine has no address that others could reach",
	} {
		h := Host{Config: &config.Config{}, Address: func() netip.Addr { a, _ := netip.ParseAddr(address); return a }}
		h.Config.Mesh.Enabled = true
		var found []string
		for _, c := range h.Checks() {
			if c.Name == "mesh address" {
				found = append(found, c.Run(t.Context())[0].Fact)
			}
		}
		if len(found) != 1 || found[0] != want {
			t.Errorf("at %q: %q, want %q", address, found, want)
		}
	}
}

// TestEcho judges multicast on a machine on which no node runs.
func TestEcho(t *testing.T) {
	for name, test := range map[string]struct {
		address, discover string
		err               error
		want              Finding
	}{
		"heard":      {"10.0.0.2", "on", nil, ok("this machine hears what it sends to others nearby")},
		"unheard":    {"10.0.0.2", "on", errors.New("unheard"), warning(fixMulticast, "beacons cannot be sent or heard: unheard")},
		"off":        {"10.0.0.2", "", errors.New("asked"), ok(discoverOff)},
		"no address": {"", "on", errors.New("asked"), ok("not tried without a mesh address")},
	} {
		h := Host{Config: &config.Config{}, Address: func() netip.Addr { a, _ := netip.ParseAddr(test.address); return a },
			Echo: func(context.Context) error { return test.err }}
		h.Config.Mesh.Enabled, h.Config.Mesh.Discover = true, test.discover != ""
		var found []Finding
		for _, c := range h.Checks() {
			if c.Name == "multicast" {
				found = append(found, c.Run(t.Context())...)
			}
		}
		if len(found) != 1 || found[0] != test.want {
			t.Errorf("%s: %+v", name, found)
		}
	}
}
