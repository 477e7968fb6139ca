package roster

import (
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

const (
	// MaxMembers bounds the roster; the largest mesh with full membership is meant to be a quarter of it.
	MaxMembers = 4096
	// maxBoots bounds the starts of one peer that gossip may call alive at once. One is the rule; a second
	// stands there between a crash and the moment gossip notices.
	maxBoots = 4
	// lookWithin is how long a claim of death waits for somebody to look.
	lookWithin = 3 * time.Second
	// holds is how long own evidence outweighs a claim of death before somebody has to look again.
	holds = 10 * time.Second
)

// entry is all that is known of one member. Times are the table's caller's.
type entry struct {
	member Member
	boots  []string // starts gossip calls alive, the latest last
	gone   State    // what gossip calls it when no boot is alive: Dead or Left

	claimed   time.Time // of the last claim
	failed    time.Time // last own attempt that failed
	why       string    // how it failed
	forgotten bool      // restored from the file, no claim yet
}

// alive reports the claim.
func (e *entry) alive() bool { return len(e.boots) > 0 }

// judge makes a state of claims and evidence; see the package comment.
func (e *entry) judge(now time.Time) (State, string) {
	seen, failed := e.member.Seen, e.failed
	switch {
	case e.alive() && !failed.After(seen):
		return Alive, ""
	case e.alive():
		return Suspect, "alive in gossip, but: " + e.why
	case e.gone == Left: // it said so itself, and may answer for a while yet
		return Left, "left the mesh"
	case e.forgotten && seen.Before(e.claimed):
		return Dead, "not seen since this node started"
	}
	looked := e.claimed // when the claim, or the evidence against it, wants somebody to look
	if !seen.Before(e.claimed) && !failed.After(seen) {
		looked = seen.Add(holds)
	}
	switch {
	case now.Before(looked):
		return Alive, ""
	case failed.Before(e.claimed) && now.Before(looked.Add(lookWithin)):
		return Suspect, "gossip lost it, and this node has not looked yet"
	default:
		return Dead, "gossip lost it"
	}
}

// due is when judge may come to another state without anything being told; zero: never.
func (e *entry) due(now time.Time) time.Time {
	if e.alive() || e.member.State >= Dead {
		return time.Time{}
	}
	for _, at := range []time.Time{e.claimed.Add(lookWithin), e.member.Seen.Add(holds), e.member.Seen.Add(holds + lookWithin)} {
		if at.After(now) {
			return at
		}
	}
	return time.Time{}
}

// table is the decision core: no lock, no clock, no files.
type table struct {
	self    peer.ID
	entries map[peer.ID]*entry
	open    map[peer.ID]*entry // those whose state is not settled: suspects, and the living gossip calls gone
	version uint64             // grows with every change a watcher cares for
}

func newTable(self peer.ID) *table {
	return &table{self: self, entries: make(map[peer.ID]*entry), open: make(map[peer.ID]*entry)}
}

// claimAlive takes in that gossip says: this start of m is alive. Fields of m beside Met, State, Since,
// Seen and Reason are used.
func (t *table) claimAlive(m Member, now time.Time) {
	if m.ID == t.self || m.ID.IsZero() {
		return
	}
	e := t.entries[m.ID]
	if e == nil {
		t.makeRoom()
		e = &entry{member: Member{Met: now, State: Dead, Since: now}}
		t.entries[m.ID] = e
	}
	boots := slices.DeleteFunc(e.boots, func(b string) bool { return b == m.Boot })
	if len(boots) >= maxBoots {
		boots = boots[1:]
	}
	if m.Boot != e.member.Boot {
		e.failed = time.Time{} // the failure was another start's
	}
	e.boots = append(boots, m.Boot)
	e.claimed, e.forgotten = now, false
	known := e.member
	m.Met, m.State, m.Since, m.Seen, m.Reason = known.Met, known.State, known.Since, known.Seen, known.Reason
	if !m.equal(known) {
		t.version++
	}
	e.member = m
	t.settle(e, now)
}

// claimGone takes in that gossip says: this start of id is dead; or that itself said, signed: it leaves.
func (t *table) claimGone(id peer.ID, boot string, left bool, now time.Time) {
	e := t.entries[id]
	if e == nil || !slices.Contains(e.boots, boot) {
		return
	}
	e.boots = slices.DeleteFunc(e.boots, func(b string) bool { return b == boot })
	if e.alive() {
		return
	}
	e.gone, e.claimed = Dead, now
	if left {
		e.gone = Left
	}
	t.settle(e, now)
}

// seen takes in own evidence of life, failed that an own attempt to reach it failed.
func (t *table) seen(id peer.ID, now time.Time) {
	if e := t.entries[id]; e != nil {
		e.member.Seen = now
		t.settle(e, now)
	}
}

func (t *table) failed(id peer.ID, why string, now time.Time) {
	if e := t.entries[id]; e != nil {
		e.failed, e.why = now, why
		t.settle(e, now)
	}
}

// forget drops a member, as after its revocation. It comes back only with a new claim.
func (t *table) forget(id peer.ID) {
	if t.entries[id] == nil {
		return
	}
	delete(t.entries, id)
	delete(t.open, id)
	t.version++
}

// restore puts a member of an earlier run in.
func (t *table) restore(m Member, now time.Time) {
	if m.ID == t.self || m.ID.IsZero() || t.entries[m.ID] != nil || len(t.entries) >= MaxMembers {
		return
	}
	m.Boot, m.Seen = "", time.Time{}
	e := &entry{member: m, gone: Dead, claimed: now, forgotten: true}
	e.member.State, e.member.Reason = e.judge(now)
	t.entries[m.ID] = e
	t.version++
}

// settle brings the state of e up to date.
func (t *table) settle(e *entry, now time.Time) {
	state, reason := e.judge(now)
	if state != e.member.State {
		e.member.Since = now
	}
	if state != e.member.State || reason != e.member.Reason {
		t.version++
	}
	e.member.State, e.member.Reason = state, reason
	if state == Suspect || state == Alive && !e.alive() {
		t.open[e.member.ID] = e
	} else {
		delete(t.open, e.member.ID)
	}
}

// tick settles what time alone changes and tells when it wants to be called again; zero: not needed.
func (t *table) tick(now time.Time) (next time.Time) {
	for _, e := range t.open {
		t.settle(e, now)
		if due := e.due(now); !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return next
}

// doubtful lists the members whose state an own attempt would settle, by ID.
func (t *table) doubtful() []peer.ID {
	var out []peer.ID
	for id, e := range t.open {
		if e.member.State == Suspect {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, compare)
	return out
}

// makeRoom drops the member gone longest when the table is full; of none that is gone, the oldest suspect.
func (t *table) makeRoom() {
	if len(t.entries) < MaxMembers {
		return
	}
	var oldest *entry
	for _, e := range t.entries {
		if oldest == nil || rank(e) > rank(oldest) ||
			rank(e) == rank(oldest) && e.member.Since.Before(oldest.member.Since) {
			oldest = e
		}
	}
	t.forget(oldest.member.ID)
}

// rank orders entries by how little they would be missed.
func rank(e *entry) int {
	switch e.member.State {
	case Alive:
		return 0
	case Suspect:
		return 1
	default:
		return 2
	}
}

// members lists all, by ID.
func (t *table) members() []Member {
	out := make([]Member, 0, len(t.entries))
	for _, e := range t.entries {
		out = append(out, e.member)
	}
	slices.SortFunc(out, func(a, b Member) int { return compare(a.ID, b.ID) })
	return out
}
