package platform

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// properties makes a Platform of "name=value" strings.
func properties(pairs ...string) *repb.Platform {
	p := &repb.Platform{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		p.Properties = append(p.Properties, &repb.Platform_Property{Name: name, Value: value})
	}
	return p
}

func id(n uint32) *uint32 { return &n }

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []string
		want Request
	}{
		{"nothing", nil, Request{}},
		{"case of the system is folded", []string{"OSFamily=Linux"}, Request{OSFamily: "linux"}},
		{"darwin is macos", []string{"OSFamily=Darwin"}, Request{OSFamily: "macos"}},
		{"the same system twice", []string{"OSFamily=Linux", "OSFamily=linux"}, Request{OSFamily: "linux"}},
		{"aliases of ISA", []string{"Arch=amd64", "ISA=x86_64", "ISA=x86-64"}, Request{ISA: []string{"x86-64"}}},
		{"aliases of arm", []string{"Arch=aarch64", "ISA=ARM64"}, Request{ISA: []string{"arm-a64"}}},
		{"levels", []string{"ISA=x86_64_v3", "ISA=x86-64-v2"}, Request{ISA: []string{"x86-64-v2", "x86-64-v3"}}},
		{"the largest of cores", []string{"cores=1", "min-cores=4", "EstimatedCPU=500m"}, Request{Cores: 4}},
		{"thousandths of cores", []string{"EstimatedCPU=500m"}, Request{Cores: 0.5}},
		{"binary units", []string{"min-mem=2G"}, Request{MemoryBytes: 2 << 30}},
		{"decimal units", []string{"EstimatedMemory=1.5GB"}, Request{MemoryBytes: 1_500_000_000}},
		{"plain bytes", []string{"min-mem=1048576"}, Request{MemoryBytes: 1 << 20}},
		{"users", []string{"unixUID=0", "unixGID=100"}, Request{UID: id(0), GID: id(100)}},
		{"network", []string{"network=on"}, Request{Network: true}},
		{"network of other services", []string{"dockerNetwork=standard"}, Request{Network: true}},
		{"no network", []string{"network=off", "dockerNetwork=off"}, Request{}},
		{"image none", []string{"container-image=none"}, Request{}},
		{"whole root", []string{"InputRootAbsolutePath=/"}, Request{InputRoot: InputRootWhole}},
		{"local", []string{"no-remote-exec="}, Request{Local: true}},
		{"harmless", []string{"cache-silo-key=7", "requires-worker-protocol=json", "recycle-runner=true", "dockerPrivileged=false"}, Request{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(properties(c.in...))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	if r, err := Parse(nil); err != nil || !reflect.DeepEqual(r, Request{}) {
		t.Errorf("nil platform: %+v, %v", r, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"OSFamily=", "Pool=", "ISA=", "cores=many", "cores=-1", "cores=NaN", "cores=Inf", "cores=1e30", "min-mem=big", "min-mem=-1", "min-mem=9999999T",
		"min-mem=", "unixUID=-1", "unixUID=root", "unixUID=4294967295", "network=maybe",
	} {
		name, value, _ := strings.Cut(in, "=")
		_, err := Parse(properties(in))
		if e, ok := errors.AsType[*InvalidError](err); !ok || e.Property != name || e.Value != value {
			t.Errorf("%s: %v, want an InvalidError about it", in, err)
		}
	}
	for _, pair := range [][]string{{"OSFamily=linux", "OSFamily=macos"}, {"Pool=a", "Pool=b"}, {"unixUID=1", "unixUID=2"}} {
		if _, err := Parse(properties(pair...)); err == nil {
			t.Errorf("%v: two values are accepted", pair)
		}
	}
	for _, in := range []string{"osfamily=linux", "GPU=1", "dockerPrivileged=true", "=", "Label=x"} {
		name, _, _ := strings.Cut(in, "=")
		_, err := Parse(properties("OSFamily=linux", in))
		if e, ok := errors.AsType[*UnknownError](err); !ok || e.Property != name {
			t.Errorf("%s: %v, want an UnknownError about it", in, err)
		}
	}
}

func TestEffective(t *testing.T) {
	action, command := properties("Pool=a"), properties("Pool=c", "cores=2")
	if Effective(action, command) != action {
		t.Error("the Action's platform does not win")
	}
	if Effective(nil, command) != command {
		t.Error("the Command's platform is not used where the Action has none")
	}
	if Effective(nil, nil) != nil {
		t.Error("a platform came from nowhere")
	}
}

func TestMatch(t *testing.T) {
	full := Offer{
		OSFamily: "linux", ISA: []string{"x86-64", "x86-64-v2"}, Cores: 4, MemoryBytes: 8 << 30, Fingerprint: "f1",
		Pools: []string{"default", "big"}, UserIDs: true, Network: true, APISocket: true, ChrootRoot: true, WholeRoot: true,
		Images: true,
	}
	bare := Offer{OSFamily: "linux", ISA: []string{"x86-64"}, Cores: 1, MemoryBytes: 1 << 30}
	for _, c := range []struct {
		property string // that the bare offer lacks and the full one has; "" when both fulfil it
		in       []string
	}{
		{"", nil},
		{"", []string{"OSFamily=linux", "ISA=amd64", "cores=1", "min-mem=1G", "InputRootAbsolutePath=/build"}},
		{"ISA", []string{"ISA=x86-64-v2"}},
		{"Pool", []string{"Pool=big"}},
		{"host-fingerprint", []string{"host-fingerprint=f1"}},
		{"cores", []string{"min-cores=1.5"}},
		{"min-mem", []string{"EstimatedMemory=2G"}},
		{"unixUID", []string{"unixUID=0"}},
		{"unixGID", []string{"unixGID=0"}},
		{"network", []string{"network=on"}},
		{"container-image", []string{"container-image=docker://x@sha256:1"}},
		{"chrootRootDigest", []string{"chrootRootDigest=aa/1"}},
		{"remoteApisSocketPath", []string{"remoteApisSocketPath=tmp/s"}},
		{"InputRootAbsolutePath", []string{"InputRootAbsolutePath=/"}},
	} {
		r, err := Parse(properties(c.in...))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Match(full); err != nil {
			t.Errorf("%v: %v", c.in, err)
		}
		err = r.Match(bare)
		if c.property == "" {
			if err != nil {
				t.Errorf("%v: %v", c.in, err)
			}
			continue
		}
		if e, ok := errors.AsType[*MismatchError](err); !ok || e.Property != c.property {
			t.Errorf("%v: %v, want a MismatchError about %s", c.in, err, c.property)
		}
	}
	for _, in := range []string{"OSFamily=windows", "ISA=arm-a64", "Pool=other", "InputRootAbsolutePath=/elsewhere"} {
		r, err := Parse(properties(in))
		if err != nil {
			t.Fatal(err)
		}
		if r.Match(full) == nil {
			t.Errorf("%s matches", in)
		}
	}
	unknownMemory := full
	unknownMemory.MemoryBytes = 0
	if err := (Request{MemoryBytes: 1 << 50}).Match(unknownMemory); err != nil {
		t.Errorf("memory is compared with an unknown amount: %v", err)
	}
}

func TestMachineOffersItself(t *testing.T) {
	o := Machine()
	r := Request{OSFamily: o.OSFamily, ISA: o.ISA, Cores: o.Cores, MemoryBytes: o.MemoryBytes}
	if err := r.Match(o); err != nil {
		t.Error(err)
	}
	if o.Cores < 1 || len(o.ISA) == 0 || o.OSFamily == "" {
		t.Errorf("machine describes itself as %+v", o)
	}
	r.Cores++
	if r.Match(o) == nil {
		t.Error("one core more than there are is offered")
	}
}

func TestLevelsBuildOnEachOther(t *testing.T) {
	if got := x86Levels(x86{v3: true, v4: false}); !reflect.DeepEqual(got, []string{"x86-64"}) {
		t.Errorf("v3 without v2 gives %v", got)
	}
	all := x86Levels(x86{true, true, true, true, true, true, true})
	want := []string{"x86-64", "x86-sse4.1", "x86-sse4.2", "x86-avx", "x86-avx2", "x86-avx-512", "x86-64-v2", "x86-64-v3", "x86-64-v4"}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("all features give %v", all)
	}
	if got := isaOf("riscv64"); !reflect.DeepEqual(got, []string{"rv64g"}) {
		t.Errorf("riscv64 gives %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("cores", "2")
	f.Add("min-mem", "1.5GB")
	f.Add("ISA", "x86_64_v3")
	f.Fuzz(func(t *testing.T, name, value string) {
		r, err := Parse(&repb.Platform{Properties: []*repb.Platform_Property{{Name: name, Value: value}}})
		if err == nil && (r.Cores < 0 || r.MemoryBytes < 0) {
			t.Errorf("%s=%q gives %+v", name, value, r)
		}
	})
}

func TestPretend(t *testing.T) {
	truth := Offer{OSFamily: "linux", ISA: []string{"x86-64", "x86-64-v2"}, Cores: 4, Fingerprint: "f"}
	for in, want := range map[string]Offer{
		"":                    truth,
		"OSFamily=Darwin":     {OSFamily: "macos", ISA: truth.ISA, Cores: 4, Fingerprint: "f"},
		"ISA=aarch64,ISA=x":   {OSFamily: "linux", ISA: []string{"arm-a64", "x"}, Cores: 4, Fingerprint: "f"},
		"host-fingerprint=g,": {OSFamily: "linux", ISA: truth.ISA, Cores: 4, Fingerprint: "g"},
	} {
		if got, err := truth.Pretend(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"OSFamily", "OSFamily=", "colour=blue", "=x"} {
		if _, err := truth.Pretend(in); err == nil {
			t.Errorf("%q is accepted", in)
		}
	}
}

// TestNearer: of several refusals the one that came closest counts, and equal ones are summed up.
func TestNearer(t *testing.T) {
	system, pool := mismatch("OSFamily", "macos", "linux"), mismatch("Pool", "huge", "default", "big")
	other := errors.New("another")
	for _, c := range []struct {
		a, b, want error
	}{
		{system, pool, pool},
		{pool, system, pool},
		{nil, pool, pool},
		{pool, nil, pool},
		{other, pool, pool},
		{pool, other, pool},
		{pool, mismatch("Pool", "large", "small"), pool},
		{pool, mismatch("Pool", "huge", "big", "small"), mismatch("Pool", "huge", "default", "big", "small")},
		{mismatch("host-fingerprint", "x", ""), mismatch("host-fingerprint", "x", "y"), mismatch("host-fingerprint", "x", "y")},
		{mismatch("network", "on", "off"), mismatch("unixUID", "0"), mismatch("network", "on", "off")},
	} {
		if got := Nearer(c.a, c.b); got.Error() != c.want.Error() {
			t.Errorf("Nearer(%v, %v) = %v, want %v", c.a, c.b, got, c.want)
		}
	}
	if pool.(*MismatchError).Error() != `platform property Pool="huge" is not offered (offered: default, big)` {
		t.Errorf("summing up changed what was summed up: %v", pool)
	}
	var many error
	for cores := range 40 {
		many = Nearer(many, mismatch("cores", "64", formatCores(float64(cores))))
	}
	if want := `platform property cores="64" is not offered (offered: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, others)`; many.Error() != want {
		t.Errorf("%v, want %s", many, want)
	}
}
