package slot

import "slices"

// amount is a part of the machine. Cores are counted in thousandths.
type amount struct {
	millicores int64
	bytes      int64
}

func (a amount) fits(free amount) bool {
	return a.millicores <= free.millicores && a.bytes <= free.bytes
}

func (a *amount) add(b amount) {
	a.millicores += b.millicores
	a.bytes += b.bytes
}

func (a *amount) sub(b amount) {
	a.millicores -= b.millicores
	a.bytes -= b.bytes
}

// entry is one request that waits.
type entry struct {
	want       amount
	priority   int32
	invocation string
	passed     int           // how often one behind it was granted first
	granted    chan struct{} // closed when it got what it wants
}

// line is what one invocation waits for at one priority, oldest first.
type line struct {
	invocation string
	entries    []*entry
}

// level is one priority: its invocations in the order in which their turn comes.
type level struct {
	priority int32
	lines    []*line
}

// queue decides who is next. It is pure: no lock, no clock, no goroutine; the Pool guards it.
type queue struct {
	free      amount
	levels    []*level // most urgent first, none empty
	waiting   int
	maxBypass int
	maxScan   int // how many that do not fit are looked at before giving up
}

// push puts e at the end of its invocation's line.
func (q *queue) push(e *entry) {
	i, found := slices.BinarySearchFunc(q.levels, e.priority, func(l *level, p int32) int {
		return compare(l.priority, p)
	})
	if !found {
		q.levels = slices.Insert(q.levels, i, &level{priority: e.priority})
	}
	l := q.levels[i]
	at := slices.IndexFunc(l.lines, func(x *line) bool { return x.invocation == e.invocation })
	if at < 0 {
		at = len(l.lines)
		l.lines = append(l.lines, &line{invocation: e.invocation})
	}
	l.lines[at].entries = append(l.lines[at].entries, e)
	q.waiting++
}

func compare(a, b int32) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// next takes the entry out that may run now and reserves its amount; nil when there is none.
//
// It goes through the entries in their order (see each). The first that fits is granted, unless one
// before it has been passed as often as is allowed.
func (q *queue) next() *entry {
	var passed []*entry
	var found *entry
	q.each(func(e *entry) bool {
		if e.want.fits(q.free) {
			found = e
			return false
		}
		passed = append(passed, e)
		return e.passed < q.maxBypass && len(passed) < q.maxScan && q.free.millicores > 0
	})
	if found == nil {
		return nil
	}
	for _, e := range passed {
		e.passed++
	}
	q.remove(found, true)
	q.free.sub(found.want)
	return found
}

// each visits the entries in the order in which they would run: by level, and within it in rounds of
// one entry of every invocation.
func (q *queue) each(visit func(*entry) bool) {
	for _, l := range q.levels {
		for round, any := 0, true; any; round++ {
			any = false
			for _, line := range l.lines {
				if round >= len(line.entries) {
					continue
				}
				any = true
				if !visit(line.entries[round]) {
					return
				}
			}
		}
	}
}

// remove takes e out of its line and reports whether it was there. When it was granted, its
// invocation's turn is over and the line goes behind the others.
func (q *queue) remove(e *entry, turn bool) bool {
	for i, l := range q.levels {
		if l.priority != e.priority {
			continue
		}
		for j, line := range l.lines {
			if line.invocation != e.invocation {
				continue
			}
			k := slices.Index(line.entries, e)
			if k < 0 {
				return false
			}
			line.entries = slices.Delete(line.entries, k, k+1)
			q.waiting--
			if turn || len(line.entries) == 0 {
				l.lines = slices.Delete(l.lines, j, j+1)
			}
			if turn && len(line.entries) > 0 {
				l.lines = append(l.lines, line)
			}
			if len(l.lines) == 0 {
				q.levels = slices.Delete(q.levels, i, i+1)
			}
			return true
		}
	}
	return false
}
