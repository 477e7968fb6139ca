package initproc

import "errors"

// Mode says how much of the world init builds.
type Mode uint32

// The modes.
const (
	Namespaces Mode = iota // new user, mount and uts namespaces are around this process: be a spawner
	Prebuilt               // somebody else (bubblewrap) has built the root: only limits, filter and the action
	Confined               // no namespaces: Landlock, filter, limits, and a process group
)

// Bits of Setup.Flags.
const (
	WholeRoot   uint32 = 1 << iota // the overlay is the root file system
	WatchMemory                    // sum the resident memory of all processes and kill beyond MemoryBytes
	Loopback                       // bring the loopback interface up
	Offline                        // Confined: refuse TCP where Landlock can
	BecomeGuest                    // switch to UID and GID before mounting (the node is root)
	Background                     // the action stays in the session of its spawner
	OwnUsers                       // a user namespace for the run alone, so that Processes counts no other
)

// Bind is one bind mount from the old root into the new one.
type Bind struct {
	Source, Target string // source in the old root, relative to Base or absolute; target absolute in the new root
	File           bool   // the target is a file, not a directory
	Writable       bool
	Device         bool // device nodes work
}

// Link is a symbolic link made in the new root.
type Link struct{ Name, Target string }

// Setup is everything init needs to know, in two messages. The first, the ground, has only what does not depend on the
// run, so that init can be ready before there is one; the second has the rest.
type Setup struct {
	// The ground.
	Mode     Mode
	Flags    uint32 // WatchMemory belongs to the run
	UID      uint32
	GID      uint32
	Base     string // directory that relative paths start from
	NewRoot  string // an empty directory to mount the new root on
	Binds    []Bind
	Links    []Link
	Hostname string
	TmpBytes int64 // size of /tmp, and of /home

	// The run.
	Lowers      []string // relative to Base, as are the next four
	Upper       string
	Work        string
	Stdout      string
	Stderr      string
	Writable    []string // trees that may be written; Namespaces: below ReadOnly ones, after all
	Readable    []string // Confined: trees that may be read and executed
	Directory   string
	Directories []string // made, with parents, below the root before the action starts
	ReadOnly    []string // "/" or below it, made read-only before the action starts; Namespaces
	Arguments   []string
	Env         []string
	Processes   int64 // RLIMIT_NPROC, 0 = unlimited
	FileBytes   int64 // RLIMIT_FSIZE, 0 = unlimited
	MemoryBytes int64 // for WatchMemory
}

// join completes the ground with the message about the run.
func (s *Setup) join(run *Setup) {
	flags := s.Flags | run.Flags
	ground := *s
	*s = *run
	s.Mode, s.Flags, s.UID, s.GID, s.Base, s.NewRoot = ground.Mode, flags, ground.UID, ground.GID, ground.Base, ground.NewRoot
	s.Binds, s.Links, s.Hostname, s.TmpBytes = ground.Binds, ground.Links, ground.Hostname, ground.TmpBytes
}

// Stage names the step of setting up that failed.
type Stage uint8

// The stages.
const (
	StageSetup Stage = iota + 1
	StageUser
	StageOverlay
	StageRoot
	StageBind
	StagePivot
	StageProc
	StageDev
	StageTmp
	StageNetwork
	StageLimits
	StagePrivileges
	StageFilter
	StageLandlock
	StageDirectory
	StageReadOnly
	StageOutput
	StageLookup // the program was not found or may not be executed
	StageExec
)

var stageNames = [...]string{
	StageSetup: "read setup", StageUser: "become guest", StageOverlay: "mount overlay", StageRoot: "mount root",
	StageBind: "bind", StagePivot: "pivot root", StageProc: "mount proc", StageDev: "make dev", StageTmp: "mount tmp",
	StageNetwork: "bring loopback up", StageLimits: "set limits", StagePrivileges: "drop privileges",
	StageFilter: "install filter", StageLandlock: "restrict with landlock", StageDirectory: "make directory",
	StageReadOnly: "make read-only", StageOutput: "open output",
	StageLookup: "find program", StageExec: "start program",
}

func (s Stage) String() string {
	if int(s) < len(stageNames) && stageNames[s] != "" {
		return stageNames[s]
	}
	return "unknown stage"
}

// Kind tells what a Report is about.
type Kind uint8

// The kinds, in the order in which they are sent: Fault alone, or Started and then Ended.
const (
	Fault Kind = iota + 1
	Started
	Ended
)

// Report is one message of init to its parent. Times are nanoseconds of the wall clock since 1970.
type Report struct {
	Kind    Kind
	Stage   Stage  // Fault
	Errno   uint32 // Fault
	Subject string // Fault: the path or program it is about
	Status  uint32 // Ended: the wait status of the action
	Memory  bool   // Ended: init killed the action for its memory
	Time    int64  // Started, Ended
	Usage   Usage  // Ended
}

// Usage is what the action and all its reaped descendants used.
type Usage struct {
	UserNanos, SystemNanos     int64
	MaxRSSBytes                int64 // of the largest single process
	ReadBlocks, WriteBlocks    int64 // 512 byte blocks
	MinorFaults, MajorFaults   int64
	Voluntary, InvoluntarySwap int64 // context switches
}

// ErrFormat is returned for bytes that are no Setup or no Report.
var ErrFormat = errors.New("malformed init message")

const (
	setupMagic  = 0x31697362
	reportMagic = 0x31727362
	// MaxMessage bounds an encoded message, in bytes: arguments and environment are bounded by the kernel at 2 MiB anyway.
	MaxMessage = 16 << 20
)

type encoder struct{ b []byte }

func (e *encoder) u32(v uint32) {
	e.b = append(e.b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

func (e *encoder) i64(v int64) { e.u32(uint32(v)); e.u32(uint32(uint64(v) >> 32)) }

func (e *encoder) str(s string) { e.u32(uint32(len(s))); e.b = append(e.b, s...) }

func (e *encoder) strs(ss []string) {
	e.u32(uint32(len(ss)))
	for _, s := range ss {
		e.str(s)
	}
}

func (e *encoder) bit(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u32() uint32 {
	b := d.take(4)
	if b == nil {
		return 0
	}
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func (d *decoder) i64() int64 {
	low := d.u32()
	return int64(uint64(low) | uint64(d.u32())<<32)
}

func (d *decoder) str() string { return string(d.take(int(d.u32()))) }

// count reads a number of elements of at least size bytes each; more than can follow is malformed, so a lie cannot make
// the decoder allocate.
func (d *decoder) count(size int) int {
	n := int(d.u32())
	if n < 0 || n > len(d.b)/size {
		d.bad = true
		return 0
	}
	return n
}

func (d *decoder) strs() []string {
	n := d.count(4)
	if n == 0 {
		return nil
	}
	out := make([]string, 0, n)
	for i := 0; i < n && !d.bad; i++ {
		out = append(out, d.str())
	}
	return out
}

func (d *decoder) bit() bool {
	b := d.take(1)
	if b == nil {
		return false
	}
	if b[0] > 1 {
		d.bad = true
	}
	return b[0] == 1
}

// Encode gives the bytes that DecodeSetup reads.
func (s *Setup) Encode() []byte {
	var e encoder
	e.u32(setupMagic)
	e.u32(0) // total length, set below
	e.u32(uint32(s.Mode))
	e.u32(s.Flags)
	e.u32(s.UID)
	e.u32(s.GID)
	for _, v := range []string{s.Base, s.NewRoot, s.Upper, s.Work, s.Stdout, s.Stderr, s.Hostname, s.Directory} {
		e.str(v)
	}
	for _, v := range [][]string{s.Lowers, s.Writable, s.Readable, s.Directories, s.ReadOnly, s.Arguments, s.Env} {
		e.strs(v)
	}
	e.u32(uint32(len(s.Binds)))
	for _, b := range s.Binds {
		e.str(b.Source)
		e.str(b.Target)
		e.bit(b.File)
		e.bit(b.Writable)
		e.bit(b.Device)
	}
	e.u32(uint32(len(s.Links)))
	for _, l := range s.Links {
		e.str(l.Name)
		e.str(l.Target)
	}
	for _, v := range []int64{s.TmpBytes, s.Processes, s.FileBytes, s.MemoryBytes} {
		e.i64(v)
	}
	length := encoder{e.b[:4:4]}
	length.u32(uint32(len(e.b)))
	copy(e.b[4:8], length.b[4:8])
	return e.b
}

// headerSize is how many bytes tell the length of a Setup.
const headerSize = 8

// setupLength gives the whole length of the Setup that starts with these bytes.
func setupLength(header []byte) (int, error) {
	d := decoder{b: header}
	magic, n := d.u32(), int(d.u32())
	if d.bad || magic != setupMagic || n < headerSize || n > MaxMessage {
		return 0, ErrFormat
	}
	return n, nil
}

// DecodeSetup reads what Encode wrote. Anything else, and anything after it, is ErrFormat.
func DecodeSetup(b []byte) (*Setup, error) {
	n, err := setupLength(b)
	if err != nil || n != len(b) {
		return nil, ErrFormat
	}
	d := decoder{b: b[headerSize:]}
	s := &Setup{Mode: Mode(d.u32()), Flags: d.u32(), UID: d.u32(), GID: d.u32()}
	for _, p := range []*string{&s.Base, &s.NewRoot, &s.Upper, &s.Work, &s.Stdout, &s.Stderr, &s.Hostname, &s.Directory} {
		*p = d.str()
	}
	for _, p := range []*[]string{&s.Lowers, &s.Writable, &s.Readable, &s.Directories, &s.ReadOnly, &s.Arguments, &s.Env} {
		*p = d.strs()
	}
	for i, n := 0, d.count(11); i < n && !d.bad; i++ {
		s.Binds = append(s.Binds, Bind{Source: d.str(), Target: d.str(), File: d.bit(), Writable: d.bit(), Device: d.bit()})
	}
	for i, n := 0, d.count(8); i < n && !d.bad; i++ {
		s.Links = append(s.Links, Link{Name: d.str(), Target: d.str()})
	}
	for _, p := range []*int64{&s.TmpBytes, &s.Processes, &s.FileBytes, &s.MemoryBytes} {
		*p = d.i64()
	}
	if d.bad || len(d.b) != 0 || s.Mode > Confined {
		return nil, ErrFormat
	}
	return s, nil
}

// reportHead is the fixed part of an encoded Report, in bytes; the subject follows.
const reportHead = 4 + 1 + 1 + 4 + 4 + 1 + 8 + 9*8 + 4

// maxSubject bounds the subject of a fault, in bytes, so that a Report always fits into one atomic write to a pipe.
const maxSubject = 1024

// Encode gives the bytes that DecodeReport reads.
func (r *Report) Encode() []byte {
	var e encoder
	e.u32(reportMagic)
	e.b = append(e.b, byte(r.Kind), byte(r.Stage))
	e.u32(r.Errno)
	e.u32(r.Status)
	e.bit(r.Memory)
	e.i64(r.Time)
	u := &r.Usage
	for _, v := range []int64{u.UserNanos, u.SystemNanos, u.MaxRSSBytes, u.ReadBlocks, u.WriteBlocks,
		u.MinorFaults, u.MajorFaults, u.Voluntary, u.InvoluntarySwap} {
		e.i64(v)
	}
	e.str(r.Subject[:min(len(r.Subject), maxSubject)])
	return e.b
}

// DecodeReport reads one Report from the start of b and tells how many bytes it took; 0 means that more are needed.
func DecodeReport(b []byte) (Report, int, error) {
	if len(b) < reportHead {
		return Report{}, 0, nil
	}
	d := decoder{b: b}
	magic := d.u32()
	var r Report
	r.Kind, r.Stage = Kind(d.take(1)[0]), Stage(d.take(1)[0])
	r.Errno, r.Status, r.Memory, r.Time = d.u32(), d.u32(), d.bit(), d.i64()
	u := &r.Usage
	for _, p := range []*int64{&u.UserNanos, &u.SystemNanos, &u.MaxRSSBytes, &u.ReadBlocks, &u.WriteBlocks,
		&u.MinorFaults, &u.MajorFaults, &u.Voluntary, &u.InvoluntarySwap} {
		*p = d.i64()
	}
	n := int(d.u32())
	if d.bad || magic != reportMagic || r.Kind < Fault || r.Kind > Ended || n > maxSubject {
		return Report{}, 0, ErrFormat
	}
	if n > len(d.b) {
		return Report{}, 0, nil
	}
	r.Subject = string(d.take(n))
	return r, reportHead + n, nil
}
