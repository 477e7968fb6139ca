package platform

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

// Machine describes the machine it is called on: OSFamily, ISA, Cores and MemoryBytes. What depends on
// the owner's wishes or on the sandbox (pools, fingerprint, users, network) is the caller's to fill in.
func Machine() Offer {
	return Offer{
		OSFamily:    normalOS(runtime.GOOS),
		ISA:         isaOf(runtime.GOARCH),
		Cores:       float64(runtime.NumCPU()),
		MemoryBytes: memoryBytes(),
	}
}

// isaOf lists the architecture with the extensions and levels this processor has, in the lexicon's words.
func isaOf(arch string) []string {
	switch arch {
	case "amd64":
		return x86Levels(hostX86())
	case "arm64":
		isa := []string{"arm-a64", "armv8"}
		if cpu.ARM64.HasASIMD {
			isa = append(isa, "arm-neon")
		}
		if cpu.ARM64.HasSVE {
			isa = append(isa, "arm-sve")
		}
		return isa
	}
	if name, known := lexiconArch[arch]; known {
		return []string{name}
	}
	return []string{arch}
}

// lexiconArch translates Go's names of architectures without extensions here into those of platform.md.
var lexiconArch = map[string]string{
	"386":     "x86-32",
	"arm":     "arm-a32",
	"loong64": "la64v100",
	"ppc64":   "power-isa-be",
	"ppc64le": "power-isa-le",
	"riscv64": "rv64g",
}

// x86 holds the features that the levels of the x86-64 psABI are made of, one field for each level.
type x86 struct {
	sse41, sse42, avx, avx2 bool
	v2, v3, v4              bool // the whole feature set that a level adds to the one below
}

// hostX86 reads the processor's features (x86-64 psABI, section 3.1.1, table of micro-architecture levels).
func hostX86() x86 {
	f := &cpu.X86
	return x86{
		sse41: f.HasSSE41, sse42: f.HasSSE42, avx: f.HasAVX, avx2: f.HasAVX2,
		v2: f.HasCX16 && f.HasLAHF && f.HasPOPCNT && f.HasSSE3 && f.HasSSE41 && f.HasSSE42 && f.HasSSSE3,
		v3: f.HasAVX && f.HasAVX2 && f.HasBMI1 && f.HasBMI2 && f.HasF16C && f.HasFMA && f.HasLZCNT &&
			f.HasMOVBE && f.HasOSXSAVE,
		v4: f.HasAVX512F && f.HasAVX512BW && f.HasAVX512CD && f.HasAVX512DQ && f.HasAVX512VL,
	}
}

// x86Levels lists the levels from the lowest up; a level counts only when all below it do.
func x86Levels(f x86) []string {
	isa := []string{"x86-64"}
	for _, extension := range []struct {
		has  bool
		name string
	}{
		{f.sse41, "x86-sse4.1"}, {f.sse42, "x86-sse4.2"}, {f.avx, "x86-avx"}, {f.avx2, "x86-avx2"}, {f.v4, "x86-avx-512"},
	} {
		if extension.has {
			isa = append(isa, extension.name)
		}
	}
	for _, level := range []struct {
		has  bool
		name string
	}{{f.v2, "x86-64-v2"}, {f.v3, "x86-64-v3"}, {f.v4, "x86-64-v4"}} {
		if !level.has {
			break
		}
		isa = append(isa, level.name)
	}
	return isa
}
