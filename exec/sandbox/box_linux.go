package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/buildmesh/buildmesh/exec/cgroup"
	"github.com/buildmesh/buildmesh/exec/sandbox/initproc"
)

// Box runs actions in the best tier this machine has. It is made by Probe.
type Box struct {
	options  Options
	base     string // Dir without links
	tier     Tier
	init     *program
	root     bool // the node is root, so the guest is another user
	tools    hostTools
	runs     atomic.Uint64
	spawners spawners

	background sync.Mutex                // guards below
	guests     map[cgroup.Group]struct{} // groups of the runs in the background
	frozen     bool                      // they stand still
}

// Close gives up what the Box holds. Runs must have ended.
func (b *Box) Close() error {
	b.spawners.close()
	return b.init.close()
}

// Tier tells how well actions are isolated.
func (b *Box) Tier() Tier { return b.tier }

// Owner tells which user must own input layers and scratch directories: the one an action is outside. If need is false,
// that is the node itself and nothing has to be done. Overlay cannot copy up a file whose owner is not mapped.
func (b *Box) Owner() (uid, gid int, need bool) {
	if !b.root {
		return os.Getuid(), os.Getgid(), false
	}
	return b.options.GuestUID, b.options.GuestGID, true
}

func (b *Box) owner() owner {
	uid, gid, need := b.Owner()
	return owner{uid: uid, gid: gid, need: need}
}

// grouped reports whether control groups limit and count what is run.
func (b *Box) grouped() bool { return b.groups().Version() != "none" }

// groups makes the control groups of runs. Bubblewrap forks before anybody could put it into one, so it goes without.
func (b *Box) groups() cgroup.Manager {
	if b.tier == TierB {
		return cgroup.None{}
	}
	return b.options.Groups
}

// relative gives a path relative to Dir, which is all of the machine that an init sees beside the tools.
func (b *Box) relative(path string) string {
	if rel, err := filepath.Rel(b.options.Dir, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	if rel, err := filepath.Rel(b.base, path); err == nil {
		return rel
	}
	return path
}

// ground is what init can prepare before a run is known.
type ground struct {
	uid, gid       int
	network, whole bool
	background     bool
}

func groundOf(spec *Spec) ground {
	uid, gid := inside(spec)
	return ground{uid: uid, gid: gid, network: spec.Network, whole: spec.WholeRoot, background: spec.Background}
}

// prepare makes the first message to init.
func (b *Box) prepare(g ground) *initproc.Setup {
	s := &initproc.Setup{
		Mode: initproc.Namespaces, UID: uint32(g.uid), GID: uint32(g.gid), Base: b.base, NewRoot: newRoot,
		Hostname: "buildmesh", TmpBytes: b.options.TmpBytes,
	}
	if b.tier == TierC {
		return b.prepareConfined(s)
	}
	if g.background {
		s.Flags |= initproc.Background
	}
	if g.whole {
		s.Flags |= initproc.WholeRoot
	} else {
		s.Binds, s.Links = b.tools.binds, b.tools.links
	}
	if b.root {
		s.Flags |= initproc.BecomeGuest
	}
	if !g.network {
		s.Flags |= initproc.Loopback
	} else if !g.whole {
		s.Binds = append(slices.Clip(s.Binds), resolver())
	}
	return s
}

// inside gives the user and group ids the action sees.
func inside(spec *Spec) (uid, gid int) {
	uid, gid = spec.UID, spec.GID
	if uid < 0 {
		uid = defaultInside
	}
	if gid < 0 {
		gid = defaultInside
	}
	return uid, gid
}

// setup makes the second message to init, about the run.
func (b *Box) setup(spec *Spec, place *scratch) *initproc.Setup {
	s := &initproc.Setup{
		Upper: b.relative(place.upper), Work: b.relative(place.work),
		Stdout: b.relative(place.stdout.Name()), Stderr: b.relative(place.stderr.Name()),
		Directory: spec.directory(), Arguments: spec.Arguments, Env: spec.environment(),
		FileBytes: fileBytes(spec.Limits),
	}
	for _, l := range spec.Lowers {
		s.Lowers = append(s.Lowers, b.relative(l))
	}
	if len(s.Lowers) == 0 || spec.WholeRoot {
		s.Lowers = append(s.Lowers, b.relative(b.tools.skeleton))
	}
	for _, d := range spec.Directories {
		s.Directories = append(s.Directories, spec.inside(d))
	}
	s.Directories = append(s.Directories, s.Directory)
	if b.tier == TierC {
		b.setupConfined(s, spec, place)
		return s
	}
	for _, path := range spec.ReadOnly {
		s.ReadOnly = append(s.ReadOnly, spec.inside(path))
	}
	for _, path := range spec.Writable {
		s.Writable = append(s.Writable, spec.inside(path))
	}
	if b.grouped() {
		return s
	}
	s.Flags |= initproc.OwnUsers
	s.Processes = int64(spec.Limits.Pids) + 1 // init is one
	if spec.Limits.Memory > 0 {
		s.Flags |= initproc.WatchMemory
		s.MemoryBytes = spec.Limits.Memory
	}
	return s
}

// resolver shows the machine's name servers to an action with network. The file often is a link into /run.
func resolver() initproc.Bind {
	b := initproc.Bind{Source: "/dev/null", Target: "/etc/resolv.conf", File: true}
	if path, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil {
		b.Source = path
	}
	return b
}

// fileBytes bounds a single file by what all may have together: the kernel stops the simplest bombs without a watcher.
func fileBytes(l Limits) int64 {
	if l.Disk == 0 || l.Output == 0 {
		return 0
	}
	return max(l.Disk, l.Output)
}

// hostTools is what of the machine an action with host tools sees.
type hostTools struct {
	binds    []initproc.Bind
	links    []initproc.Link
	skeleton string // a directory with the mount points every root needs
}

// toolDirs are the directories that hold compilers and their libraries. On merged-usr systems most are links.
var toolDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"}

// findTools lists what of the machine is shown.
func findTools(extra []string) hostTools {
	var t hostTools
	for _, dir := range append(append([]string{}, toolDirs...), extra...) {
		info, err := os.Lstat(dir)
		if err != nil {
			continue
		}
		if info.Mode()&os.ModeSymlink != 0 {
			if target, err := os.Readlink(dir); err == nil {
				t.links = append(t.links, initproc.Link{Name: dir, Target: target})
			}
			continue
		}
		if info.IsDir() {
			t.binds = append(t.binds, initproc.Bind{Source: dir, Target: dir})
		}
	}
	return t
}
