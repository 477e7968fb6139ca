package journal

import (
	"hash/fnv"
	"strings"
	"unique"

	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
)

// position is what is known of a record without reading it.
type position struct {
	sequence   uint64
	segment    uint64 // the number of its file
	offset     int64
	size       int64 // of the payload
	action     uint64
	subject    uint64
	hash       [16]byte // begin of the action's hash
	target     unique.Handle[string]
	invocation uint64
	ran        bool
	named      bool // by its client, or by its command
	remark     bool
}

// index is the positions of all records, the newest last.
type index struct {
	most int
	all  []position
	last uint64 // highest sequence number so far
}

// positionOf is the position of a record, but for where it is.
func positionOf(r *journalv1.Record) position {
	if m := r.GetRemark(); m != nil {
		return position{sequence: m.Sequence, action: actionSum(m.Action), target: unique.Make(""), remark: true}
	}
	e := r.GetEntry()
	p := position{
		sequence: e.GetSequence(), action: actionSum(e.GetAction()), subject: e.GetSubject(), target: unique.Make(e.GetTarget()),
		invocation: sumOf(e.GetInvocation()), named: e.GetMnemonic()+e.GetTarget()+e.GetWords() != "", ran: e.GetCache().GetVerdict() > journalv1.Cache_VERDICT_HIT_MEMBER,
	}
	copy(p.hash[:], e.GetAction())
	return p
}

// next is the sequence number that the next record gets.
func (x *index) next() uint64 { return x.last + 1 }

// oldest is the segment of the oldest record that counts.
func (x *index) oldest() uint64 {
	if len(x.all) == 0 {
		return 0
	}
	return x.all[0].segment
}

// add appends a record and forgets the oldest beyond the bound. Sequence numbers only grow, whatever a file says.
func (x *index) add(p position) {
	if p.sequence <= x.last {
		return
	}
	x.last = p.sequence
	if len(x.all) >= x.most+x.most/8+1 {
		x.all = append(x.all[:0], x.all[len(x.all)-x.most+1:]...)
	}
	x.all = append(x.all, p)
}

// drop forgets the records of segments before one.
func (x *index) drop(segment uint64) {
	n := 0
	for n < len(x.all) && x.all[n].segment < segment {
		n++
	}
	x.all = append(x.all[:0], x.all[n:]...)
}

// unsaid is the invocation of those that name none: they are no one's.
var unsaid = sumOf("")

// find gives where the newest entry for q is, or -1, and where others of its target and invocation are.
func (x *index) find(q Query) (main int, also []int) {
	label := q.Label
	if label == nil {
		label = func(s string) string { return s }
	}
	wanted := map[unique.Handle[string]]bool{}
	isTarget := func(h unique.Handle[string]) bool {
		is, known := wanted[h]
		if !known {
			is = h.Value() != "" && (h.Value() == q.Subject || label(h.Value()) == label(q.Subject))
			wanted[h] = is
		}
		return is
	}
	main = -1
	for at := len(x.all) - 1; at >= 0; at-- {
		p := &x.all[at]
		switch {
		case p.remark:
		case main < 0 && (q.Subject == "" || p.begins(q.Subject) || isTarget(p.target)):
			if main = at; q.Subject == "" || !isTarget(p.target) {
				return main, nil
			}
		case main >= 0 && isTarget(p.target) && p.invocation == x.all[main].invocation && p.invocation != unsaid:
			if p.ran && !x.all[main].ran {
				also, main = append(also, main), at
				continue
			}
			also = append(also, at)
		}
	}
	return main, also
}

// targets gives every target once, the latest first.
func (x *index) targets() (all []string) {
	seen := map[unique.Handle[string]]bool{unique.Make(""): true}
	for at := len(x.all) - 1; at >= 0; at-- {
		if target := x.all[at].target; !seen[target] {
			seen[target] = true
			all = append(all, target.Value())
		}
	}
	return all
}

// named gives for each action where the newest entry is that names it, or -1.
func (x *index) named(actions []string) []int {
	places, wanted := make([]int, len(actions)), map[uint64][]int{}
	for i, action := range actions {
		places[i] = -1
		sum := actionSum(action)
		wanted[sum] = append(wanted[sum], i)
	}
	for at := len(x.all) - 1; at >= 0 && len(wanted) > 0; at-- {
		if p := &x.all[at]; p.named {
			for _, i := range wanted[p.action] {
				places[i] = at
			}
			delete(wanted, p.action)
		}
	}
	return places
}

// minHash is how much of a hash names an action.
const minHash = 4

// begins reports whether s is the begin of the action's hash. Its first 16 characters are compared.
func (p *position) begins(s string) bool {
	s = strings.ToLower(s)
	if len(s) < minHash || strings.Trim(s, "0123456789abcdef/") != "" {
		return false
	}
	if len(s) > len(p.hash) {
		return string(p.hash[:]) == s[:len(p.hash)]
	}
	return string(p.hash[:len(s)]) == s
}

// before gives where the last such entry before a sequence number is, or -1.
func (x *index) before(sequence uint64, such func(*position) bool) int {
	for at := len(x.all) - 1; at >= 0; at-- {
		if p := &x.all[at]; p.sequence < sequence && !p.remark && such(p) {
			return at
		}
	}
	return -1
}

// maxRemarks is how many remarks are read for one entry.
const maxRemarks = 16

// remarks gives where the remarks about the entry at a place may be: those between the entries about its action before and after it.
func (x *index) remarks(at int) (all []int) {
	first := at
	for first > 0 && (x.all[first-1].remark || x.all[first-1].action != x.all[at].action) {
		first--
	}
	for near := first; near < len(x.all) && len(all) < maxRemarks; near++ {
		p := &x.all[near]
		if near == at || p.action != x.all[at].action {
			continue
		}
		if !p.remark {
			break
		}
		all = append(all, near)
	}
	return all
}

// actionSum stands for an action's digest in the index.
func actionSum(action string) uint64 { return sumOf(action) }

// sumOf is a number that is equal for equal lists of strings, and hardly for others.
func sumOf(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return h.Sum64()
}
