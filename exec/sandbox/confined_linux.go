package sandbox

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/buildmesh/buildmesh/exec/sandbox/initproc"
)

// In tier C there is no root of the action's own: it runs in a copy of its inputs, and Landlock refuses the rest. Init is
// an ordinary process, and kills by itself what the action leaves.

// prepareConfined makes the first message to init in tier C.
func (b *Box) prepareConfined(s *initproc.Setup) *initproc.Setup {
	s.Mode, s.NewRoot = initproc.Confined, ""
	uid, gid, need := b.Owner()
	s.UID, s.GID = uint32(uid), uint32(gid)
	if need {
		s.Flags |= initproc.BecomeGuest
	}
	return s
}

// confinedReadable is what an action in tier C may read beside the tools.
var confinedReadable = []string{"/etc", "/proc", "/dev"}

// setupConfined completes the second message to init in tier C.
func (b *Box) setupConfined(s *initproc.Setup, spec *Spec, place *scratch) {
	s.Lowers, s.Work, s.Processes = nil, "", 0 // the kernel's limit of processes would count all of the user's
	s.Directory = filepath.Join(place.upper, spec.WorkingDirectory)
	s.Directories = []string{s.Directory}
	for _, d := range spec.Directories {
		s.Directories = append(s.Directories, filepath.Join(place.upper, d))
	}
	s.Writable = []string{place.upper, place.work, "/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts"}
	s.Readable = append(slices.Clone(toolDirs), b.options.ToolDirs...)
	s.Readable = append(s.Readable, confinedReadable...)
	if !hasPrefix(s.Env, "TMPDIR=") {
		s.Env = append(slices.Clip(s.Env), "TMPDIR="+place.work)
	}
	if !spec.Network {
		s.Flags |= initproc.Offline
	}
}

// copyInputs makes the upper directory a private copy of the input layers, never a hardlink.
func (b *Box) copyInputs(spec *Spec, place *scratch) error {
	if spec.WholeRoot {
		return fmt.Errorf("%w of tier A: the input root is to be the root", ErrNoSandbox)
	}
	return copyLayers(spec.Lowers, place.upper, b.owner())
}
