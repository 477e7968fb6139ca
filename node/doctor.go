package node

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/exec/cgroup"
	"github.com/buildmesh/buildmesh/exec/fingerprint"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/mesh/discover"
	"github.com/buildmesh/buildmesh/node/config"
	"github.com/buildmesh/buildmesh/node/doctor"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// Doctor runs the checks of a machine on which no node runs. It leaves nothing behind.
func Doctor(ctx context.Context, c *config.Config) []*controlv1.Check {
	host := doctor.Host{Config: c,
		Address: func() netip.Addr { return discover.Address(nil, c.Mesh.Networks) },
		Echo:    func(ctx context.Context) error { return discover.Echo(ctx, netip.AddrPort{}, c.Mesh.Networks) },
		Sandbox: func(ctx context.Context) []doctor.Finding { return probe(ctx, c.Dir.Cache) },
		Fingerprint: func(ctx context.Context) []doctor.Finding {
			f, err := fingerprint.Compute(ctx, fingerprint.Options{ISA: platform.Machine().ISA})
			if err != nil {
				return []doctor.Finding{{Verdict: doctor.Failed, Fact: err.Error(), Fix: "make the file readable for the node"}}
			}
			return []doctor.Finding{{Fact: madeOf(f)}}
		},
	}
	return checks(doctor.Run(ctx, host.Checks()))
}

// doctor runs the checks beside this node, which holds its ports and knows its sandbox.
func (n *Node) doctor(ctx context.Context) []*controlv1.Check {
	host := doctor.Host{Config: n.config, Running: true}
	if n.report != nil {
		host.Sandbox = func(context.Context) []doctor.Finding { return findings(*n.report) }
	}
	if n.machine != nil {
		host.Fingerprint = func(context.Context) []doctor.Finding {
			return []doctor.Finding{{Fact: n.machine.fingerprint.String()[:16] + ", " + madeOf(n.machine.fingerprint)}}
		}
	}
	if n.mesh != nil && n.mesh.presence != nil {
		host.Company = n.mesh.company(n.config.Mesh.Networks, time.Now())
	}
	return checks(doctor.Run(ctx, host.Checks()))
}

// probe finds the sandbox of this machine in a directory of its own, which goes with it.
func probe(ctx context.Context, cache string) []doctor.Finding {
	place := cache
	for ; place != filepath.Dir(place); place = filepath.Dir(place) {
		if _, err := os.Stat(place); err == nil {
			break
		}
	}
	fault := func(err error) []doctor.Finding {
		return []doctor.Finding{{Verdict: doctor.Failed, Fact: err.Error(), Fix: "see the checks above"}}
	}
	dir, err := os.MkdirTemp(place, ".buildmesh-doctor-*")
	if err != nil {
		return fault(err)
	}
	defer os.RemoveAll(dir)
	groups, _ := cgroup.Find() // without any, a check of its own says so
	defer groups.Close()
	box, report, err := sandbox.Probe(ctx, sandbox.Options{Dir: dir, Groups: groups})
	if err != nil {
		return fault(err)
	}
	defer box.Close()
	return findings(report)
}

// findings puts the report of a probe into the doctor's words.
func findings(r sandbox.Report) []doctor.Finding {
	verdict := doctor.Warning
	switch r.Tier {
	case sandbox.TierA:
		return []doctor.Finding{{Fact: fmt.Sprintf("tier A, full isolation; init program: %s, control groups: %s", r.Init, r.Groups)}}
	case sandbox.TierD:
		verdict = doctor.Failed
	}
	out := []doctor.Finding{{Verdict: verdict, Fact: fmt.Sprintf("tier %v of A to D", r.Tier),
		Fix: "mend what follows, then start the node again"}}
	for _, f := range r.Findings {
		found := doctor.Finding{Fact: f.Fact}
		if f.Fix != "" {
			found.Verdict, found.Fix = doctor.Warning, f.Fix
		}
		out = append(out, found)
	}
	return out
}

// madeOf tells how many parts of which kind a fingerprint is made of.
func madeOf(f fingerprint.Fingerprint) string {
	numbers := make(map[string]int)
	for _, p := range f.Parts {
		kind, _, _ := strings.Cut(p.Name, " ")
		numbers[kind]++
	}
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(numbers)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, numbers[kind]))
	}
	return "by number of parts: " + strings.Join(kinds, ", ")
}

// checks puts results into the control API's form.
func checks(results []doctor.Result) []*controlv1.Check {
	verdicts := map[doctor.Verdict]controlv1.Check_Verdict{
		doctor.OK: controlv1.Check_VERDICT_OK, doctor.Warning: controlv1.Check_VERDICT_WARNING, doctor.Failed: controlv1.Check_VERDICT_FAILED,
	}
	var out []*controlv1.Check
	for _, r := range results {
		out = append(out, &controlv1.Check{Name: r.Check, Verdict: verdicts[r.Verdict], Finding: r.Fact, Fix: r.Fix})
	}
	return out
}
