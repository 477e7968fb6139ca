package distance

import (
	"sync"
	"time"
)

// Bounds of what is kept.
const (
	// Samples is how many measurements of one kind are kept for a site, the latest.
	Samples = 8
	// Enough is how many make the distance known.
	Enough = 3
	// FreshFor is how long a measurement counts.
	FreshFor = 10 * time.Minute
	// MaxSites is how many sites are kept.
	MaxSites = 256

	minBytes = 64 << 10 // shorter transfers tell nothing of how fast bytes come
)

// Distance is how far a site is.
type Distance struct {
	RTT       time.Duration // of a call that is answered at once; 0: not known
	Bandwidth float64       // bytes a second of one transfer; 0: not known
}

// Table is the distances of sites. Make it with NewTable.
type Table struct {
	mu    sync.Mutex // guards sites
	sites map[string]*site
}

// site is what was measured of one.
type site struct {
	answers   recent // durations in seconds
	transfers recent // seconds for a byte
}

// NewTable makes an empty one.
func NewTable() *Table { return &Table{sites: map[string]*site{}} }

// Answered notes how long a call to somebody at a site took.
func (t *Table) Answered(name string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if s := t.site(name, now); s != nil {
		s.answers.add(took.Seconds(), now)
	}
}

// Brought notes how long a transfer from a site took, the call that asked for it included.
func (t *Table) Brought(name string, bytes int64, took time.Duration) {
	if bytes < minBytes {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	s := t.site(name, now)
	if s == nil {
		return
	}
	if moving := took.Seconds() - s.answers.best(now); moving > 0 {
		s.transfers.add(moving/float64(bytes), now)
	}
}

// site gives the one of that name, a new one if there is room. mu is held.
func (t *Table) site(name string, now time.Time) *site {
	if s := t.sites[name]; s != nil {
		return s
	}
	if len(t.sites) >= MaxSites {
		for other, s := range t.sites {
			if s.answers.stale(now) && s.transfers.stale(now) {
				delete(t.sites, other)
			}
		}
		if len(t.sites) >= MaxSites {
			return nil
		}
	}
	s := &site{}
	t.sites[name] = s
	return s
}

// To is how far a site is, as far as that is known now.
func (t *Table) To(name string) Distance {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, now := t.sites[name], time.Now()
	if s == nil {
		return Distance{}
	}
	d := Distance{RTT: time.Duration(s.answers.best(now) * float64(time.Second))}
	if each := s.transfers.best(now); each > 0 {
		d.Bandwidth = 1 / each
	}
	return d
}

// recent is the latest measurements of one kind.
type recent struct {
	all  [Samples]sample
	next int // where the next one goes
}

type sample struct {
	value float64
	at    time.Time // zero: there is none
}

func (r *recent) add(value float64, now time.Time) {
	r.all[r.next] = sample{value, now}
	r.next = (r.next + 1) % Samples
}

// best is the smallest fresh value; 0 when there are too few.
func (r *recent) best(now time.Time) float64 {
	least, n := 0.0, 0
	for _, s := range r.all {
		if s.at.IsZero() || now.Sub(s.at) > FreshFor {
			continue
		}
		if n++; n == 1 || s.value < least {
			least = s.value
		}
	}
	if n < Enough {
		return 0
	}
	return least
}

// stale reports whether nothing counts any more.
func (r *recent) stale(now time.Time) bool {
	for _, s := range r.all {
		if !s.at.IsZero() && now.Sub(s.at) <= FreshFor {
			return false
		}
	}
	return true
}
