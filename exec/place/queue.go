package place

import (
	"cmp"
	"container/list"
	"slices"
)

// line is what one invocation waits for at one priority, oldest first.
type line struct {
	invocation string
	items      list.List // of *item
}

// level is one priority: its invocations in the order in which their turn comes.
type level struct {
	priority int32
	lines    []*line
}

// queue is the initiator's own: by priority, invocations in turn, first come first served.
type queue struct {
	levels  []*level // most urgent first, none empty
	waiting int
	counts  map[string]int // waiting, by invocation
}

// push puts an item at the end of its invocation's line, or at its head when it waited before.
func (q *queue) push(it *item, head bool) {
	i, found := slices.BinarySearchFunc(q.levels, it.Priority, func(l *level, p int32) int { return cmp.Compare(l.priority, p) })
	if !found {
		q.levels = slices.Insert(q.levels, i, &level{priority: it.Priority})
	}
	l := q.levels[i]
	at := slices.IndexFunc(l.lines, func(x *line) bool { return x.invocation == it.Invocation })
	if at < 0 {
		at = len(l.lines)
		l.lines = append(l.lines, &line{invocation: it.Invocation})
	}
	if x := l.lines[at]; head {
		it.waits = x.items.PushFront(it)
	} else {
		it.waits = x.items.PushBack(it)
	}
	q.waiting++
	q.counts[it.Invocation]++
}

// each visits the waiting items in the order of their turns, until visit says stop. The one visited may be removed.
func (q *queue) each(visit func(*item) bool) {
	for _, l := range slices.Clone(q.levels) {
		next := make([]*list.Element, len(l.lines))
		for i, x := range l.lines {
			next[i] = x.items.Front()
		}
		for any := true; any; {
			any = false
			for i, e := range next {
				if e == nil {
					continue
				}
				any, next[i] = true, e.Next()
				if !visit(e.Value.(*item)) {
					return
				}
			}
		}
	}
}

// remove takes an item out. When it got its turn, its invocation's line goes behind the others.
func (q *queue) remove(it *item, turn bool) {
	if it.waits == nil {
		return
	}
	q.waiting--
	if q.counts[it.Invocation]--; q.counts[it.Invocation] == 0 {
		delete(q.counts, it.Invocation)
	}
	i := slices.IndexFunc(q.levels, func(l *level) bool { return l.priority == it.Priority })
	l := q.levels[i]
	at := slices.IndexFunc(l.lines, func(x *line) bool { return x.invocation == it.Invocation })
	x := l.lines[at]
	x.items.Remove(it.waits)
	it.waits = nil
	if turn || x.items.Len() == 0 {
		l.lines = slices.Delete(l.lines, at, at+1)
	}
	if turn && x.items.Len() > 0 {
		l.lines = append(l.lines, x)
	}
	if len(l.lines) == 0 {
		q.levels = slices.Delete(q.levels, i, i+1)
	}
}
