package sandbox

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/buildmesh/buildmesh/exec/sandbox/initproc"
)

// check rejects what would be misunderstood later on.
func (s *Spec) check() error {
	switch {
	case len(s.Arguments) == 0:
		return fmt.Errorf("%w: no arguments", ErrSpec)
	case s.Scratch == "" || !filepath.IsAbs(s.Scratch):
		return fmt.Errorf("%w: scratch directory %q is not absolute", ErrSpec, s.Scratch)
	}
	for _, l := range s.Lowers {
		if !filepath.IsAbs(l) {
			return fmt.Errorf("%w: input layer %q is not absolute", ErrSpec, l)
		}
	}
	for _, d := range slices.Concat([]string{s.WorkingDirectory}, s.Directories, s.ReadOnly, s.Writable) {
		if d != "" && !filepath.IsLocal(d) {
			return fmt.Errorf("%w: directory %q is outside the input root", ErrSpec, d)
		}
	}
	for _, v := range slices.Concat(s.Arguments, s.Env) {
		if strings.IndexByte(v, 0) >= 0 {
			return fmt.Errorf("%w: zero byte in %q", ErrSpec, v)
		}
	}
	return nil
}

// protections joins ReadOnly and Writable, parents first.
func (s *Spec) protections() []initproc.Protection {
	return initproc.Protections(s.ReadOnly, s.Writable)
}

// environment gives the action's own environment and, beside host tools, the few variables without which results depend
// on the machine.
func (s *Spec) environment() []string {
	if s.WholeRoot {
		return s.Env
	}
	env := append([]string(nil), s.Env...)
	for _, fixed := range []string{"TZ=UTC", "LANG=C.UTF-8", "HOME=/home"} {
		name := fixed[:strings.IndexByte(fixed, '=')+1]
		if !hasPrefix(s.Env, name) {
			env = append(env, fixed)
		}
	}
	return env
}

func hasPrefix(env []string, prefix string) bool {
	for _, e := range env {
		if strings.HasPrefix(e, prefix) {
			return true
		}
	}
	return false
}
