package sandbox

import (
	"errors"
	"fmt"
	"time"

	"github.com/buildmesh/buildmesh/exec/cgroup"
)

// Tier says how well this machine can isolate an action.
type Tier int

// The tiers, best first.
const (
	TierA Tier = iota // namespaces, overlay, capabilities dropped, filter
	TierB             // the same through bubblewrap
	TierC             // Landlock or the like, inputs copied; the owner's own actions only
	TierD             // none: nothing is run
)

func (t Tier) String() string { return string(rune('A' + int(t))) }

// Guests reports whether actions of others may be run in this tier.
func (t Tier) Guests() bool { return t <= TierB }

// Reason tells why an action ended.
type Reason int

// The reasons. Everything but Exited is not the action's own result, and must never be cached.
const (
	Exited Reason = iota
	TimedOut
	OutOfMemory
	DiskFull
	OutputTooLarge
	Cancelled
)

func (r Reason) String() string {
	names := [...]string{"exited", "timed out", "out of memory", "disk full", "output too large", "cancelled"}
	if r < 0 || int(r) >= len(names) {
		return "unknown"
	}
	return names[r]
}

// Options configures Probe. The zero value of everything but Dir is a documented default.
type Options struct {
	// Dir is the directory below which all Lowers and Scratch directories live. It must exist. If the node is root, Probe
	// makes it searchable (0711), since the guest has to reach what is below.
	Dir string
	// GuestUID and GuestGID are what an action is mapped to outside when the node is root. Default 65533: not nobody, so
	// that nothing else on the machine belongs to it.
	GuestUID, GuestGID int
	// TmpBytes bounds /tmp, /home and /dev/shm, each. Default 2 GiB.
	TmpBytes int64
	// MinFree is how many bytes must stay free on the disk of Dir; a run that is in the way is ended with DiskFull.
	// Default 64 MiB, and at most a twentieth of the disk.
	MinFree int64
	// ToolDirs are further directories of the host shown to actions, read-only. /usr and its kin always are.
	ToolDirs []string
	// Groups makes control groups; default cgroup.None.
	Groups cgroup.Manager
	// Best is the best tier tried, to let tests and owners ask for less. Default TierA.
	Best Tier
}

// Spec is one run.
type Spec struct {
	Lowers           []string // overlay lower directories, topmost first, never written
	Scratch          string   // private directory of this run; upper, work, stdout and stderr are made inside
	WholeRoot        bool     // the input root is "/"; else it is at /build, beside the host's tools
	WorkingDirectory string   // relative to the input root, clean, "" for the root; made if missing
	Directories      []string // relative to the input root, made if missing before the action starts (parents of outputs)
	ReadOnly         []string // files and directories relative to the input root that the action must not change (tiers A, B)
	Writable         []string // directories below those, at any depth, that it may write to after all
	Arguments        []string // argv; a bare argv[0] is searched in PATH of Env, inside the sandbox
	Env              []string // K=V, in this order; TZ, LANG and HOME are added if absent and not WholeRoot
	UID, GID         int      // inside; 0 is root inside, without any capability. Negative: the default, 1000
	Network          bool     // share the network of the machine
	Limits           Limits
	Cores            float64 // share of processor time under contention, 0 = 1
	Background       bool    // processor time only when nobody else wants it; Box.Freeze stops it
}

// Limits of a run. Zero means unlimited, except where said.
type Limits struct {
	Wall   time.Duration // from the start of the action, setup excluded
	Memory int64         // bytes, all processes together, /tmp included where a control group counts
	Disk   int64         // bytes in the upper directory
	Output int64         // bytes of standard output and standard error together
	Pids   int           // processes and threads; zero means 4096
}

// Usage is what the action and its descendants used.
type Usage struct {
	User, System              time.Duration
	MaxRSS                    int64 // bytes: peak of all together where a control group counts, else of the largest process
	ReadBytes, WriteBytes     int64 // of block devices
	MinorFaults, MajorFaults  int64
	VoluntarySwitches         int64
	InvoluntarySwitches       int64
	OutputBytes, ScratchBytes int64 // ScratchBytes: as last seen by the disk watcher, 0 without a disk limit
}

// Result tells how a run ended.
type Result struct {
	ExitCode   int // 128 + signal number if the main process was killed by one
	Signal     int // 0 if it exited
	Reason     Reason
	Usage      Usage
	Started    time.Time // the action was started; setup is before
	Finished   time.Time // its main process had ended
	Upper      string    // the directory of what the action wrote
	Merged     bool      // Upper is the whole input root (tier C), not only what changed
	StdoutPath string
	StderrPath string
}

// CommandError means that the program of the action does not exist or cannot be executed: the client's fault, and the same
// on every machine with this root.
type CommandError struct {
	Program string
	Err     error // syscall.ENOENT, EACCES, ENOEXEC, ...
}

func (e *CommandError) Error() string { return fmt.Sprintf("start program %s: %v", e.Program, e.Err) }

// Unwrap gives the system's error.
func (e *CommandError) Unwrap() error { return e.Err }

// ErrNoSandbox is returned by Run of a Box of tier D.
var ErrNoSandbox = errors.New("no sandbox on this machine")

// ErrSpec is wrapped by errors about a Spec that makes no sense.
var ErrSpec = errors.New("invalid sandbox request")

// Finding is one thing that Probe found out.
type Finding struct {
	Fact string // a sentence, such as "namespaces: all of them can be made"
	Fix  string // the command or step that would improve it; empty if nothing is wrong
}

// Report is what Probe found out, in words for the owner.
type Report struct {
	Tier     Tier
	Init     string // which program is init: "embedded" or "node"
	Groups   string // which control groups are in use: "v2", "v1", "none"
	Findings []Finding
}

const (
	defaultGuest   = 65533
	defaultInside  = 1000
	defaultTmp     = 2 << 30
	largestMinFree = 64 << 20
	defaultPids    = 4096
	inputRoot      = "/build"
)

// directory gives the working directory inside the sandbox.
func (s *Spec) directory() string { return s.inside(s.WorkingDirectory) }

// inside gives the path inside the sandbox of one relative to the input root.
func (s *Spec) inside(relative string) string {
	base := inputRoot
	if s.WholeRoot {
		base = ""
	}
	if relative == "" || relative == "." {
		if base == "" {
			return "/"
		}
		return base
	}
	return base + "/" + relative
}
