package chaos

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is what an event does to its node.
type Kind string

// The kinds.
const (
	Kill      Kind = "kill"      // SIGKILL, started again afterwards
	Sleep     Kind = "sleep"     // SIGSTOP, SIGCONT afterwards
	Unplug    Kind = "unplug"    // no cable
	Partition Kind = "partition" // no frame to or from it passes, and nobody is told
	Slow      Kind = "slow"      // a thin, long wire
	Move      Kind = "move"      // another address, for good
	Pause     Kind = "pause"     // its owner wants the machine
	Fill      Kind = "fill"      // no byte more goes on its disk
	Revoke    Kind = "revoke"    // no longer a member, for good
)

// Kinds lists all of them.
func Kinds() []Kind { return []Kind{Kill, Sleep, Unplug, Partition, Slow, Move, Pause, Fill, Revoke} }

// network tells whether a kind changes the wiring, of which there is one.
func (k Kind) network() bool { return k == Partition || k == Slow }

// forGood tells whether a kind is not healed.
func (k Kind) forGood() bool { return k == Move || k == Revoke }

// Event is one disturbance.
type Event struct {
	At   time.Duration // since the begin of the build
	For  time.Duration // until it is healed
	Kind Kind
	Node string
}

// String is the event in words.
func (e Event) String() string {
	if e.Kind.forGood() {
		return fmt.Sprintf("%v %s %s", e.At, e.Kind, e.Node)
	}
	return fmt.Sprintf("%v %s %s for %v", e.At, e.Kind, e.Node, e.For)
}

// Plan is the events of one build, by their time.
type Plan []Event

// String is one event a line.
func (p Plan) String() string {
	var lines []string
	for _, e := range p {
		lines = append(lines, e.String())
	}
	return strings.Join(lines, "\n")
}

// End is when all that can be healed is.
func (p Plan) End() time.Duration {
	var end time.Duration
	for _, e := range p {
		end = max(end, e.At+e.For)
	}
	return end
}

// What a plan may say.
const (
	shortest = 500 * time.Millisecond
	longest  = 8 * time.Second
	tick     = 100 * time.Millisecond // times are multiples of it, for people who read them
)

// Make plans events on the nodes within a time. One of the nodes is left in peace.
func Make(seed int64, nodes []string, within time.Duration, kinds []Kind) Plan {
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	spared := nodes[random.IntN(len(nodes))]
	var plan Plan
	busy := map[string]time.Duration{} // until when something is disturbed: a node, or the wiring
	const wiring = ""
	for _, name := range nodes {
		if name == spared || len(kinds) == 0 {
			continue
		}
		for at := between(random, 0, within/3); at < within; at += between(random, shortest, within/3) {
			e := Event{At: at, For: between(random, shortest, longest), Kind: kinds[random.IntN(len(kinds))], Node: name}
			if at < busy[name] || e.Kind.network() && at < busy[wiring] {
				continue
			}
			if e.Kind.forGood() {
				e.For = 0
			}
			plan = append(plan, e)
			busy[name] = e.At + e.For + tick
			if e.Kind.network() {
				busy[wiring] = busy[name]
			}
			if e.Kind == Revoke {
				break // nothing more to lose
			}
		}
	}
	slices.SortStableFunc(plan, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	return plan
}

// between is a time from a to b.
func between(random *rand.Rand, a, b time.Duration) time.Duration {
	ticks := max(1, int64((b-a)/tick))
	return a + time.Duration(random.Int64N(ticks))*tick
}
