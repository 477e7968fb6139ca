package facts

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// laptop is somebody's facts.
var laptop = Facts{
	Version: "v0.3.1", OSFamily: "linux", ISA: []string{"x86-64", "x86-64-v3"}, Cores: 7.5, CoresFree: 2.125,
	Memory: 12 << 30, MemoryFree: 3 << 30, Queued: 2, Fingerprint: "3f9a", Pools: []string{"default"},
	Abilities: []string{"images", "whole-root"}, Tier: "A", State: Paused, Reason: "on battery", Network: Wireless,
	Clock: time.UnixMilli(1772355600123),
}

// TestGolden: the bytes an earlier program sent are understood by this one, and what this one sends by it. The
// file is the wire format as it was first; it is never written again.
func TestGolden(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "facts-v1.hex"))
	if err != nil {
		t.Fatal(err)
	}
	golden, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	var m meshv1.Facts
	if err := proto.Unmarshal(golden, &m); err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(&m); err != nil || !reflect.DeepEqual(got, laptop) {
		t.Errorf("an earlier node says %+v, %v", got, err)
	}
	// What this program sends has every field of the first format, in its encoding, among whatever is new.
	ours, err := proto.MarshalOptions{Deterministic: true}.Marshal(laptop.Proto(laptop.Clock))
	if err != nil {
		t.Fatal(err)
	}
	sent := fields(t, ours)
	for number, want := range fields(t, golden) {
		if sent[number] != want {
			t.Errorf("field %d is sent as %x, an earlier node wants %x", number, sent[number], want)
		}
	}
}

// fields splits a message into the bytes of each field number.
func fields(t *testing.T, data []byte) map[protowire.Number]string {
	t.Helper()
	out := make(map[protowire.Number]string)
	for len(data) > 0 {
		number, _, n := protowire.ConsumeField(data)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		out[number] += string(data[:n])
		data = data[n:]
	}
	return out
}

// TestLater takes in what a later version may send.
func TestLater(t *testing.T) {
	data, err := proto.Marshal(laptop.Proto(laptop.Clock))
	if err != nil {
		t.Fatal(err)
	}
	data = protowire.AppendTag(data, 99, protowire.BytesType)
	data = protowire.AppendString(data, "news")
	data = protowire.AppendTag(data, 13, protowire.VarintType) // a state nobody knows yet
	data = protowire.AppendVarint(data, 42)
	var m meshv1.Facts
	if err := proto.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	if f, err := Parse(&m); err != nil || f.State != Unknown || f.Tier != "A" {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := Parse(&meshv1.Facts{}); err != nil || f.State != Unknown || !f.Clock.IsZero() {
		t.Errorf("empty: %+v, %v", f, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*meshv1.Facts){
		"more free than there are": func(m *meshv1.Facts) { m.CoresFreeMilli = m.CoresMilli + 1 },
		"negative":                 func(m *meshv1.Facts) { m.CoresMilli, m.CoresFreeMilli = -1, -2 },
		"a million cores":          func(m *meshv1.Facts) { m.CoresMilli = 1e9 },
		"memory":                   func(m *meshv1.Facts) { m.MemoryFreeBytes = m.MemoryBytes + 1 },
		"too much memory":          func(m *meshv1.Facts) { m.MemoryBytes = 1 << 60 },
		"queued":                   func(m *meshv1.Facts) { m.Queued = -1 },
		"long text":                func(m *meshv1.Facts) { m.Reason = strings.Repeat("x", maxText+1) },
		"control characters":       func(m *meshv1.Facts) { m.Reason = "\x1b[2J" },
		"long list":                func(m *meshv1.Facts) { m.Pools = make([]string, maxList+1) },
	} {
		m := laptop.Proto(laptop.Clock)
		spoil(m)
		if _, err := Parse(m); !errors.Is(err, ErrFacts) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEqual changes every field once: each but the clock is news.
func TestEqual(t *testing.T) {
	full := laptop
	full.Battery = true // which the first wire format did not have
	if !full.equal(full) {
		t.Fatal("not equal to itself")
	}
	for i := range reflect.TypeFor[Facts]().NumField() {
		f := full
		field := reflect.ValueOf(&f).Elem().Field(i)
		name := reflect.TypeFor[Facts]().Field(i).Name
		field.SetZero()
		if f.equal(full) != (name == "Clock") {
			t.Errorf("%s changed: equal %v", name, f.equal(full))
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		Ready.String(): "ready", CacheOnly.String(): "cache only", State(99).String(): "cache only", State(-1).String(): "unknown",
		Tunnel.String(): "VPN", AnyNetwork.String(): "",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	data, err := proto.Marshal(laptop.Proto(laptop.Clock))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var m meshv1.Facts
		if proto.Unmarshal(data, &m) != nil {
			return
		}
		facts, err := Parse(&m)
		if err != nil {
			return
		}
		again, err := Parse(facts.Proto(facts.Clock))
		if err != nil || !again.equal(facts) {
			t.Errorf("%+v became %+v, %v", facts, again, err)
		}
	})
}
