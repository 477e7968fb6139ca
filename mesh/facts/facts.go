package facts

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// ErrFacts is wrapped by every error about a message that makes no sense.
var ErrFacts = errors.New("facts make no sense")

// State says whether a member runs actions of others.
type State int

// The states. Unknown is a state of a later version: such a member is not counted on.
const (
	Unknown State = iota
	Ready
	Paused
	Draining
	CacheOnly
)

// String is the word people read.
func (s State) String() string {
	return []string{"unknown", "ready", "paused", "draining", "cache only"}[min(max(int(s), 0), int(CacheOnly))]
}

// Network is how a member is connected.
type Network int

// The classes of network.
const (
	AnyNetwork Network = iota
	Wired
	Wireless
	Metered
	Tunnel
)

// String is the word people read; empty when not known.
func (n Network) String() string {
	return []string{"", "wired", "wireless", "metered", "VPN"}[min(max(int(n), 0), int(Tunnel))]
}

// Facts are what one member says of itself. It is a value; its slices are not to be changed.
type Facts struct {
	Version     string
	OSFamily    string
	ISA         []string
	Cores       float64 // lent to actions; in steps of a thousandth
	CoresFree   float64
	Memory      int64 // lent, in bytes
	MemoryFree  int64
	Queued      int64 // actions that wait
	Fingerprint string
	Pools       []string
	Abilities   []string
	Tier        string
	State       State
	Reason      string
	Network     Network
	Battery     bool      // it does not run on mains power
	Clock       time.Time // what its clock showed when it sent this; set by the sender of the message
}

// Bounds of what is kept of a peer's word.
const (
	maxText  = 256
	maxList  = 64
	maxCores = 1 << 16
	maxBytes = 1 << 50
)

// equal reports whether there is nothing new in o; the clock is no news.
func (f Facts) equal(o Facts) bool {
	return f.Version == o.Version && f.OSFamily == o.OSFamily && slices.Equal(f.ISA, o.ISA) && f.Cores == o.Cores &&
		f.CoresFree == o.CoresFree && f.Memory == o.Memory && f.MemoryFree == o.MemoryFree && f.Queued == o.Queued &&
		f.Fingerprint == o.Fingerprint && slices.Equal(f.Pools, o.Pools) && slices.Equal(f.Abilities, o.Abilities) &&
		f.Tier == o.Tier && f.State == o.State && f.Reason == o.Reason && f.Network == o.Network && f.Battery == o.Battery
}

// Proto is the message, with what the clock shows at now.
func (f Facts) Proto(now time.Time) *meshv1.Facts {
	return &meshv1.Facts{
		Version: f.Version, OsFamily: f.OSFamily, Isa: f.ISA,
		CoresMilli: int64(math.Round(f.Cores * 1000)), CoresFreeMilli: int64(math.Round(f.CoresFree * 1000)),
		MemoryBytes: f.Memory, MemoryFreeBytes: f.MemoryFree, Queued: f.Queued, Fingerprint: f.Fingerprint,
		Pools: f.Pools, Abilities: f.Abilities, Tier: f.Tier, State: meshv1.Facts_State(f.State), Reason: f.Reason,
		Network: meshv1.Facts_Network(f.Network), Battery: f.Battery, ClockUnixMilli: now.UnixMilli(),
	}
}

// Parse reads a peer's message. Values of later versions become Unknown. Errors wrap ErrFacts.
func Parse(m *meshv1.Facts) (Facts, error) {
	f := Facts{
		Version: m.GetVersion(), OSFamily: m.GetOsFamily(), ISA: m.GetIsa(),
		Cores: float64(m.GetCoresMilli()) / 1000, CoresFree: float64(m.GetCoresFreeMilli()) / 1000,
		Memory: m.GetMemoryBytes(), MemoryFree: m.GetMemoryFreeBytes(), Queued: m.GetQueued(), Fingerprint: m.GetFingerprint(),
		Pools: m.GetPools(), Abilities: m.GetAbilities(), Tier: m.GetTier(), State: State(m.GetState()), Reason: m.GetReason(),
		Network: Network(m.GetNetwork()), Battery: m.GetBattery(),
	}
	if ms := m.GetClockUnixMilli(); ms != 0 {
		f.Clock = time.UnixMilli(ms)
	}
	if f.State < Unknown || f.State > CacheOnly {
		f.State = Unknown
	}
	if f.Network < AnyNetwork || f.Network > Tunnel {
		f.Network = AnyNetwork
	}
	for _, text := range slices.Concat(f.ISA, f.Pools, f.Abilities, []string{f.Version, f.OSFamily, f.Fingerprint, f.Tier, f.Reason}) {
		if len(text) > maxText || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return Facts{}, fmt.Errorf("text %.20q of %d bytes: %w", text, len(text), ErrFacts)
		}
	}
	for _, list := range [][]string{f.ISA, f.Pools, f.Abilities} {
		if len(list) > maxList {
			return Facts{}, fmt.Errorf("list of %d: %w", len(list), ErrFacts)
		}
	}
	if f.Cores < 0 || f.Cores > maxCores || f.CoresFree < 0 || f.CoresFree > f.Cores || f.Memory < 0 || f.Memory > maxBytes ||
		f.MemoryFree < 0 || f.MemoryFree > f.Memory || f.Queued < 0 {
		return Facts{}, fmt.Errorf("%g of %g cores, %d of %d bytes free, %d queued: %w", f.CoresFree, f.Cores, f.MemoryFree, f.Memory, f.Queued, ErrFacts)
	}
	return f, nil
}
