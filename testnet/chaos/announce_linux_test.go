package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/testnet/lab"
)

// BenchmarkAnnounce measures what it costs all of eight nodes that one of them announces 10,000 results: the processor time
// of their processes over a restart of that one with these results in its store, less the same without them. Run it:
//
//	go test ./testnet/chaos -run '^$' -bench Announce -benchtime 3x
func BenchmarkAnnounce(b *testing.B) {
	if err := lab.Lacking(); err != nil {
		b.Skip(err)
	}
	const results = 10_000
	for _, locator := range []string{"summary", "onehop", "kad"} {
		b.Run(locator, func(b *testing.B) {
			machine := apart
			machine.Settings = append(slices.Clip(apart.Settings), "BUILDMESH_MESH_LOCATOR="+locator)
			l := mesh(b, 8, machine)
			asking, maker := client(b, l.Node("n1")), l.Node("n8")
			sleep(b.Context(), calm)
			var took []time.Duration
			round := 0
			for b.Loop() {
				round++
				without := restart(b, l, maker, func() *repb.Digest { return signed(b, maker, fmt.Sprint("one ", round), 1) }, asking)
				with := restart(b, l, maker, func() *repb.Digest { return signed(b, maker, fmt.Sprint("many ", round), results) }, asking)
				b.Logf("%v with, %v without", with, without)
				took = append(took, with-without)
			}
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(took[len(took)/2].Seconds()*1000, "all-nodes-cpu-ms")
		})
	}
}

// restart ends a node, changes its store, starts it and waits until another one finds what the change has added last, and as
// long as every restart is measured. It gives the processor time of all nodes since the start.
func restart(b *testing.B, l *lab.Lab, n *lab.Node, change func() *repb.Digest, asking *Load) time.Duration {
	b.Helper()
	const measured = 15 * time.Second
	if err := n.Stop(); err != nil {
		b.Fatal(err)
	}
	last := change()
	spent := usage(b, l)
	if err := n.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	learns(b, asking, last)
	sleep(b.Context(), time.Until(began.Add(measured)))
	return usage(b, l) - spent
}

// signed has the store of a node that does not run hold so many results, signed by it, and no others. It gives the action of
// the last.
func signed(b *testing.B, n *lab.Node, kind string, count int) *repb.Digest {
	b.Helper()
	identity, err := peer.Load(filepath.Join(n.Dir(), "state"))
	if err != nil {
		b.Fatal(err)
	}
	seat, err := member.Open(filepath.Join(n.Dir(), "state", "mesh"), identity, member.Options{})
	if err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(n.Dir(), "cache", "receipts")
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	store, err := receipt.Open(dir, receipt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			b.Fatal(err)
		}
	}()
	secret := seat.Index()
	keyer, root := cid.NewKeyer(secret[:]), actioncache.Hermetic
	var action digest.Digest
	for i := range count {
		now := time.Now()
		action = digest.SHA256.Of(fmt.Append(nil, kind, " ", i))
		r, err := receipt.Sign(identity, receipt.Statement{Mesh: seat.Charter().Root.String(), Action: action, Root: root,
			Result: &repb.ActionResult{StdoutRaw: fmt.Append(nil, i)}, Started: now, Completed: now})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := store.Put(keyer.Result(action, root), r); err != nil {
			b.Fatal(err)
		}
	}
	return action.Proto()
}
