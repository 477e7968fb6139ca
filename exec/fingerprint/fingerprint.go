package fingerprint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Options of Compute.
type Options struct {
	Etc   string   // the directory shown as /etc; empty to leave it out
	ISA   []string // levels of the processor, as the platform advertises them
	Cache string   // a file that remembers what unchanged files hash to; empty for none
	Root  string   // where the machine's root is, for tests; default "/"
}

// Part is one thing that goes into a Sum.
type Part struct {
	Name  string // such as "program /usr/bin/x86_64-linux-gnu-gcc-12"
	Value string // such as a build id
}

// Fingerprint is the result.
type Fingerprint struct {
	Sum   [sha256.Size]byte
	Parts []Part // sorted by name
}

// String gives the Sum in hex.
func (f Fingerprint) String() string { return hex.EncodeToString(f.Sum[:]) }

// Explain lists the parts, one per line, for the owner to compare with those of another machine.
func (f Fingerprint) Explain() []string {
	lines := make([]string, 0, len(f.Parts))
	for _, p := range f.Parts {
		lines = append(lines, p.Name+": "+p.Value)
	}
	return lines
}

// Compute looks at the machine.
func Compute(ctx context.Context, o Options) (Fingerprint, error) {
	if o.Root == "" {
		o.Root = "/"
	}
	s := &survey{ctx: ctx, options: o, cache: loadCache(o.Cache), seen: map[string]bool{}}
	for _, look := range []func() error{s.packages, s.programs, s.libraries, s.unmanaged, s.etc} {
		if err := look(); err != nil {
			return Fingerprint{}, fmt.Errorf("fingerprint: %w", err)
		}
	}
	isa := slices.Clone(o.ISA)
	slices.Sort(isa)
	s.add("isa", strings.Join(isa, " "))
	if err := s.cache.save(o.Cache); err != nil {
		return Fingerprint{}, fmt.Errorf("fingerprint: %w", err)
	}
	slices.SortFunc(s.parts, func(a, b Part) int { return strings.Compare(a.Name, b.Name) })
	return Fingerprint{Sum: sum(s.parts), Parts: s.parts}, nil
}

// sum hashes the parts with their lengths, so that no two lists give the same bytes.
func sum(parts []Part) [sha256.Size]byte {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d %d %s%s", len(p.Name), len(p.Value), p.Name, p.Value)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// survey is one Compute.
type survey struct {
	ctx     context.Context
	options Options
	cache   *cache
	seen    map[string]bool // files that are in Parts already, by resolved path
	parts   []Part
}

func (s *survey) add(name, value string) { s.parts = append(s.parts, Part{Name: name, Value: value}) }

// path gives a path of the machine below Root.
func (s *survey) path(p string) string { return filepath.Join(s.options.Root, p) }
