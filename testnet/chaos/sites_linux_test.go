package chaos

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenarios"
)

// meshPort is where members speak TCP with each other.
const meshPort = 8982

// offices are two sites with a slow line between.
type offices struct {
	*lab.Lab
	delay time.Duration
	at    map[string][]*lab.Node // by their site
}

// The sites and the names of the machines at each.
var (
	berlin = []string{"b1", "b2", "b3"}
	paris  = []string{"p1", "p2", "p3"}
)

// newOffices makes two sites of three nodes each, every frame between them late by so much each way.
func newOffices(t testing.TB, delay time.Duration) *offices {
	t.Helper()
	o := &offices{machinery(t), delay, map[string][]*lab.Node{}}
	for _, name := range slices.Concat(berlin, paris) {
		site := "berlin"
		if slices.Contains(paris, name) {
			site = "paris"
		}
		n, err := o.Add(name, lab.Machine{Settings: append(slices.Clone(apart.Settings), "BUILDMESH_MESH_SITE="+site)})
		if err != nil {
			t.Fatal(err)
		}
		o.at[site] = append(o.at[site], n)
	}
	o.line(t)
	if err := scenarios.Together(t.Context(), o.Lab, t.Logf); err != nil {
		t.Fatal(err)
	}
	return o
}

// line lays the line between the two.
func (o *offices) line(t testing.TB) {
	t.Helper()
	if err := o.Slow(lab.Link{Delay: o.delay}, berlin, paris); err != nil {
		t.Fatal(err)
	}
}

// roles tells which of a site's nodes that run are its bridges and which are not.
func (o *offices) roles(t testing.TB, site string) (bridges, others []*lab.Node) {
	t.Helper()
	var members []locate.Member
	ids := map[*lab.Node]peer.ID{}
	for _, n := range o.at[site] {
		if !n.Running() {
			continue
		}
		s, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.Parse(s.PeerId)
		if err != nil {
			t.Fatal(err)
		}
		ids[n] = id
		members = append(members, locate.Member{ID: id, Site: site})
	}
	speak := locate.Bridges(site, members)
	for _, n := range o.at[site] {
		id, runs := ids[n]
		switch {
		case runs && slices.Contains(speak, id):
			bridges = append(bridges, n)
		case runs:
			others = append(others, n)
		}
	}
	return bridges, others
}

// crossed is what members have said to each other over the line so far.
func (o *offices) crossed() (sum lab.Traffic) {
	for flow, is := range o.Crossed() {
		if flow.TCP && (flow.From.Port() == meshPort || flow.To.Port() == meshPort) {
			sum.Packets, sum.Bytes = sum.Packets+is.Packets, sum.Bytes+is.Bytes
		}
	}
	return sum
}

// prints has a node run an action that prints so many bytes.
func prints(t testing.TB, load *Load, run string, size int64) *repb.Digest {
	t.Helper()
	const script = `head -c "$1" /dev/zero`
	names := []string{fmt.Sprint(size)}
	actions, err := load.upload(t.Context(), run, script, names)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load.Run(t.Context(), run, script, names); err != nil {
		t.Fatal(err)
	}
	return actions[0]
}

// What one office has built the other one finds: a miss sends nothing over the line, a result crosses it once for all, and
// whichever bridges are killed, others take over within seconds.
func TestTwoOffices(t *testing.T) {
	equipped(t)
	const size = 1_000_000
	o := newOffices(t, 20*time.Millisecond)
	here, askers := o.roles(t, "berlin")
	there, makers := o.roles(t, "paris")
	if len(here) != locate.BridgesPerSite || len(askers) != 1 || len(there) != locate.BridgesPerSite || len(makers) != 1 {
		t.Fatalf("%d bridges and %d others here, %d and %d there", len(here), len(askers), len(there), len(makers))
	}
	maker, asker, colleague := client(t, makers[0]), client(t, askers[0]), client(t, here[1])
	large := prints(t, maker, "large", size)
	takes := func(what string, limit time.Duration, load *Load, action *repb.Digest) {
		t.Helper()
		eventually(t, what, limit, func(ctx context.Context) error {
			_, err := load.Result(ctx, action)
			return err
		})
	}
	before := o.crossed()
	takes("a result of the other office", 30*time.Second, asker, large)
	if sent := o.crossed().Bytes - before.Bytes; sent < size || sent > 3*size/2 {
		t.Errorf("a result of %d bytes sent %d over the line", size, sent)
	}
	o.missesStayHere(t, asker)
	if err := o.Partition(berlin, paris); err != nil {
		t.Fatal(err)
	}
	takes("the same at a colleague's without a line", 30*time.Second, colleague, large)
	o.line(t)

	if err := here[0].Kill(); err != nil {
		t.Fatal(err)
	}
	takes("a new result after a bridge here was killed", 15*time.Second, asker, makes(t, maker, "second", 1)[0])
	for _, n := range there {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	takes("a new result after both bridges there were killed", 30*time.Second, asker, makes(t, maker, "third", 1)[0])
}

// missesStayHere looks for what nobody has.
func (o *offices) missesStayHere(t testing.TB, asker *Load) {
	t.Helper()
	const misses = 2000
	before, began := o.crossed(), time.Now()
	for i := range misses {
		if _, err := asker.Result(t.Context(), nobodys(int64(i))); status.Code(err) != codes.NotFound {
			t.Fatalf("what nobody has: %v", err)
		}
	}
	// What members tell of themselves crosses all the time. A question would be two packets at least.
	sent := o.crossed().Packets - before.Packets
	t.Logf("%d misses in %v, while %d packets crossed", misses, time.Since(began).Round(time.Millisecond), sent)
	if sent > misses/2 {
		t.Errorf("%d misses sent %d packets over the line", misses, sent)
	}
}
