package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/bot"
	"github.com/buildmesh/buildmesh/exec/cgroup"
	"github.com/buildmesh/buildmesh/exec/fingerprint"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/image"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/exec/run"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/exec/slot"
	"github.com/buildmesh/buildmesh/exec/stage"
	"github.com/buildmesh/buildmesh/node/power"
	"github.com/buildmesh/buildmesh/node/reapi"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// machine is the part of a node that runs actions.
type machine struct {
	fingerprint fingerprint.Fingerprint
	offer       platform.Offer
	stage       *stage.Cache
	slots       *slot.Pool // nil with leasing
	leasing     *leasing   // nil: this machine runs its own actions by itself
	auditor     *auditor
	flights     *flight.Table
	bots        *bot.Bots   // nil: none are let in
	placer      *bot.Placer // nil with bots
	counts      *counts
}

// openMachine opens everything that runs actions; nothing, where the configuration or the machine
// does not allow a sandbox: the node is then a cache.
func (n *Node) openMachine(ctx context.Context) error {
	if !n.config.Exec.Enabled {
		return nil
	}
	dir := filepath.Join(n.config.Dir.Cache, "exec")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	m := &machine{counts: newCounts(n.metrics)}
	var err error
	if m.auditor, err = newAuditor(n); err != nil {
		return err
	}
	box, err := n.openBox(ctx, dir)
	if err != nil || box == nil {
		return err
	}
	if err := n.openOffer(ctx, m, dir); err != nil {
		return err
	}
	if err := n.openStage(m, box, dir); err != nil {
		return err
	}
	options := n.runOptions(m, dir)
	if options.Images, err = n.openImages(m, dir); err != nil {
		return err
	}
	runner, err := run.Open(runBlobs{n.store}, m.stage, box, options)
	if err != nil {
		return err
	}
	n.onClose("runner", runner.Close)
	m.flights = n.newFlights(m, runner)
	n.onClose("flights", func() error { m.flights.Close(); return nil })
	n.machine = m
	return nil
}

// shownEtc is the copy of /etc that the sandbox shows, where it shows one.
func shownEtc(dir string) string {
	etc := filepath.Join(dir, "etc")
	if _, err := os.Stat(etc); err != nil {
		return ""
	}
	return etc
}

// openBox finds the sandbox; nil when there is none.
func (n *Node) openBox(ctx context.Context, dir string) (*sandbox.Box, error) {
	groups, err := cgroup.Find()
	if err != nil {
		n.log.Debug("no control groups", "err", err)
	}
	n.onClose("control groups", groups.Close)
	box, report, err := sandbox.Probe(ctx, sandbox.Options{Dir: dir, Groups: groups})
	if err != nil {
		return nil, err
	}
	n.onClose("sandbox", box.Close)
	freeze := box.Freeze
	n.lending.freeze.Store(&freeze)
	used := power.Usage(groups.Used)
	n.lending.used.Store(&used)
	n.report = &report
	if report.Tier == sandbox.TierD {
		n.log.Warn("no sandbox on this machine: actions are not run; see buildmesh doctor")
		return nil, nil
	}
	return box, nil
}

// openStage opens the cache of staged input trees, on the file system of the store.
func (n *Node) openStage(m *machine, box *sandbox.Box, dir string) error {
	o := stage.Options{MaxBytes: int64(n.config.Exec.StageSize), OnIncident: func(i stage.Incident) {
		n.log.Error("a staged file changed on disk; its layer was set aside", "layer", i.Layer, "path", i.Path, "digest", i.Want.String())
	}}
	if uid, gid, need := box.Owner(); need {
		o.Owner = &stage.Owner{UID: uid, GID: gid}
	}
	cache, err := stage.Open(filepath.Join(dir, "stage"), stageBlobs{n.store}, o)
	if err != nil {
		return err
	}
	m.stage = cache
	n.onClose("stage", cache.Close)
	return nil
}

// openOffer finds out what this machine offers to actions, and what it is told to offer instead.
func (n *Node) openOffer(ctx context.Context, m *machine, dir string) error {
	offer, err := n.pretended()
	if err != nil {
		return err
	}
	m.fingerprint, err = fingerprint.Compute(ctx, fingerprint.Options{
		Etc: shownEtc(dir), ISA: offer.ISA, Cache: filepath.Join(n.config.Dir.Cache, "fingerprint"),
	})
	if err != nil {
		return err
	}
	if text := offer.Fingerprint; text != "" {
		m.fingerprint = fingerprint.Fingerprint{Sum: sha256.Sum256([]byte(text)), Parts: []fingerprint.Part{{Name: "pretended", Value: text}}}
	}
	offer.Fingerprint = m.fingerprint.String()
	m.offer = n.offer(offer)
	return nil
}

// pretended is this machine with what it is told to offer instead.
func (n *Node) pretended() (platform.Offer, error) {
	offer, err := platform.Machine().Pretend(n.config.Exec.Pretend)
	if err != nil {
		return offer, fmt.Errorf("exec.pretend: %w", err)
	}
	return offer, nil
}

// cores is how many of a machine's are lent to actions.
func (n *Node) cores(o platform.Offer) float64 {
	if cores := n.config.Exec.Cores; cores > 0 {
		return float64(cores)
	}
	return o.Cores
}

// offer is what of a machine is lent to actions.
func (n *Node) offer(o platform.Offer) platform.Offer {
	o.Cores = n.cores(o)
	if memory := int64(n.config.Exec.Memory); memory > 0 {
		o.MemoryBytes = memory
	} else {
		o.MemoryBytes = o.MemoryBytes / 5 * 4
	}
	o.Pools = instances(n.config.Exec.Pools)
	o.UserIDs, o.WholeRoot, o.Network = true, true, n.config.Exec.Network
	o.ChrootRoot = n.report.Tier == sandbox.TierA // elsewhere no action gets a root of its own
	o.Images = o.ChrootRoot && n.config.Exec.Images
	return o
}

// runOptions are the limits of one action.
func (n *Node) runOptions(m *machine, dir string) run.Options {
	e := n.config.Exec
	return run.Options{
		Dir: filepath.Join(dir, "run"), Worker: n.config.Node.Name, Network: e.Network,
		Timeout: e.DefaultTimeout, Memory: m.offer.MemoryBytes, MaxMemory: m.offer.MemoryBytes,
		Disk: int64(e.MaxDisk), Output: int64(e.MaxOutput), Processes: e.MaxPids,
	}
}

// newFlights makes the table of executions.
func (n *Node) newFlights(m *machine, executor *run.Runner) *flight.Table {
	o := flight.Options{
		Blobs: n.store, Placer: n.openPlacer(m, executor), Streams: n.logs,
		Results: flightResults{n.results, n, actioncache.Root(m.fingerprint.Sum), m.counts},
		Match:   m.match,
		Status:  reapi.Status, Limits: action.Limits{MaxTimeout: n.config.Exec.MaxTimeout},
		WholeRootInstances: instances(n.config.Exec.RootInstances), Worker: n.config.Node.Name, Ended: n.journal.Ended,
	}
	if m.leasing != nil && m.bots == nil { // what a bot made is for this node's clients only
		o.Merger = m.leasing.merger
	}
	return flight.New(o)
}

// match reports whether anybody fulfils a request, before anything is done for it.
func (m *machine) match(r platform.Request) error {
	if r.ContainerImage != "" {
		if _, err := image.Parse(r.ContainerImage); err != nil {
			return &image.Error{Image: r.ContainerImage, Err: err}
		}
	}
	if m.placer != nil {
		return m.placer.Suits(r)
	}
	err := m.here(r)
	if err != nil && m.leasing != nil {
		return m.leasing.elsewhere(r, err)
	}
	return err
}

// here reports whether this machine by itself fulfils a request.
func (m *machine) here(r platform.Request) error { return r.Match(m.offer) }

// instances splits a list of names; empty ones are left out.
func instances(list string) []string {
	return slices.DeleteFunc(strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }),
		func(s string) bool { return s == "" })
}

// features is what of the endpoint's capabilities depends on this node.
func (n *Node) features() reapi.Features {
	f := reapi.Features{AbsoluteSymlinks: true}
	if n.machine != nil {
		f.Execution, f.MinPriority, f.MaxPriority = true, math.MinInt32, math.MaxInt32
		f.NodeProperties = []string{"mtime", "unix_mode"}
	}
	return f
}

// status adds the machine's part to a status.
func (m *machine) status(s *controlv1.StatusResponse) {
	s.Sandbox.Fingerprint = m.fingerprint.String()
	slots := m.room()
	s.Slots = &controlv1.Slots{
		Cores: slots.Cores, CoresBusy: slots.Cores - slots.FreeCores,
		MemoryBytes: slots.MemoryBytes, MemoryBusyBytes: slots.MemoryBytes - slots.FreeMemoryBytes,
		Running: int64(slots.Running), Queued: int64(slots.Waiting),
	}
	s.Actions = m.counts.status()
	s.Flights = m.underWay()
}

// underWay is the executions under way, oldest first.
func (m *machine) underWay() (all []*controlv1.Flight) {
	for _, f := range m.flights.List() {
		state := f.State()
		if state.Done() {
			continue
		}
		meta := f.Request().Meta
		one := &controlv1.Flight{
			Name: f.Name(), Stage: stageWord(state.Stage), Mnemonic: meta.Mnemonic, Target: meta.Target,
			Age: durationpb.New(time.Since(f.Created())), Worker: state.Metadata.GetWorker(),
		}
		if one.Mnemonic == "" && one.Target == "" {
			one.Words = f.Words()
		}
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(a, b *controlv1.Flight) int {
		return int(b.Age.AsDuration()/time.Millisecond) - int(a.Age.AsDuration()/time.Millisecond)
	})
	return all
}

// room is what of the machine is in use.
func (m *machine) room() slot.Stat {
	if m.leasing == nil {
		return m.slots.Stat()
	}
	u := m.leasing.executor.Usage()
	return slot.Stat{
		Cores: u.Cores, FreeCores: u.FreeCores, MemoryBytes: u.Bytes, FreeMemoryBytes: u.FreeBytes, Running: u.Running, Waiting: m.leasing.initiator.Waiting(),
	}
}

// stageWord is an execution stage in a person's words.
func stageWord(s repb.ExecutionStage_Value) string {
	switch s {
	case repb.ExecutionStage_CACHE_CHECK:
		return "looking up"
	case repb.ExecutionStage_QUEUED:
		return "queued"
	case repb.ExecutionStage_EXECUTING:
		return "running"
	default:
		return strings.ToLower(s.String())
	}
}
