package place

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Bounds of a History.
const (
	maxKinds   = 1024 // mnemonics remembered
	maxSamples = 256  // of one mnemonic, the latest
	enough     = 5    // samples before anything is concluded
	renewAt    = 8    // an estimate is made anew when an eighth as many samples as it is made of have come since

	maxTimesUsual = 8 // a peer may say that an action took so many times the memory that such actions take as a rule
)

// History is what actions of each mnemonic needed lately. Durations are those of a machine of speed 1. It is kept in memory
// only: whoever wants it to outlive the process notes what Core.Finished gives, and adds that to the next one.
type History struct {
	kinds map[string]*kind
	clock uint64 // grows with every use, to forget the least recently used
}

// kind is the history of one mnemonic.
type kind struct {
	used uint64
	all  ring
	own  ring // those of all that this machine made

	starved int64 // bytes of memory that those needed which had run out of it
	since   int   // samples since the last of them
}

// ring is the latest samples of something.
type ring struct {
	samples  []Sample
	next     int
	fresh    int // samples that the estimate does not know
	estimate Estimate
}

// Estimate is what an action is expected to need. Zero fields are not known.
type Estimate struct {
	Samples      int
	Own          int           // of them, measured on this machine
	Median, P95  time.Duration // on a machine of speed 1
	Cores        float64       // at the mean, rounded up to whole ones
	MemoryBytes  int64         // at most, with a fifth to spare
	UsualBytes   int64         // of memory, as a rule
	StarvedBytes int64         // of memory, with a fifth to spare, that those needed which had run out of it; known from the first on
	InputBytes   int64         // fetched by a peer that has nothing
	OutputBytes  int64         // brought by its result
}

// NewHistory makes an empty one.
func NewHistory() *History { return &History{kinds: map[string]*kind{}} }

// Add notes what an action needed on a machine of speed 1. By what was measured on this machine the speeds of others are told.
func (h *History) Add(mnemonic string, s Sample) {
	h.clock++
	k := h.kinds[mnemonic]
	if k == nil {
		if len(h.kinds) >= maxKinds {
			h.forget()
		}
		k = &kind{}
		h.kinds[mnemonic] = k
	}
	k.used = h.clock
	s = s.bounded()
	k.all.add(s)
	if s.Own {
		k.own.add(s)
	}
	switch k.since++; {
	case s.Starved:
		k.starved, k.since = max(k.starved, spare(s.MemoryBytes)), 0
	case k.since >= maxSamples:
		k.starved = 0
	}
}

// bounded is s with everything absurd cut off.
func (s Sample) bounded() Sample {
	return Sample{
		Duration: max(s.Duration, 0), Cores: clamp(s.Cores, 0, maxSlots), MemoryBytes: min(max(s.MemoryBytes, 0), maxMemory),
		InputBytes: max(s.InputBytes, 0), OutputBytes: max(s.OutputBytes, 0), Own: s.Own, Starved: s.Starved,
	}
}

// on is what s, measured at a speed, would have been on a machine of speed 1.
func (s Sample) on(speed float64) Sample {
	s.Duration = time.Duration(float64(s.Duration) * speed)
	return s
}

func (r *ring) add(s Sample) {
	r.fresh++
	if len(r.samples) < maxSamples {
		r.samples = append(r.samples, s)
		return
	}
	r.samples[r.next] = s
	r.next = (r.next + 1) % maxSamples
}

// renew makes the estimate anew, unless little has come since it was made.
func (r *ring) renew() {
	if r.fresh == 0 || renewAt*r.fresh < r.estimate.Samples {
		return
	}
	r.fresh = 0
	times := ordered(r.samples, func(s Sample) time.Duration { return s.Duration })
	memory := ordered(r.samples, func(s Sample) int64 { return s.MemoryBytes })
	r.estimate = Estimate{
		Samples: len(times), Own: count(r.samples, func(s Sample) bool { return s.Own }), Median: quantile(times, 0.5), P95: quantile(times, 0.95),
		Cores:       math.Ceil(quantile(ordered(r.samples, func(s Sample) float64 { return s.Cores }), 0.5) - 0.25),
		MemoryBytes: spare(quantile(memory, 1)), UsualBytes: quantile(memory, 0.5),
		InputBytes:  quantile(ordered(r.samples, func(s Sample) int64 { return s.InputBytes }), 0.5),
		OutputBytes: quantile(ordered(r.samples, func(s Sample) int64 { return s.OutputBytes }), 0.5),
	}
}

// spare adds a fifth to what was needed.
func spare(bytes int64) int64 { return bytes + bytes/5 }

// count is how many samples are so.
func count(samples []Sample, so func(Sample) bool) (n int) {
	for _, s := range samples {
		if so(s) {
			n++
		}
	}
	return n
}

// ordered is one part of all samples, ascending.
func ordered[T cmp.Ordered](samples []Sample, part func(Sample) T) []T {
	all := make([]T, len(samples))
	for i, s := range samples {
		all[i] = part(s)
	}
	slices.Sort(all)
	return all
}

// quantile of sorted values, of which there is one at least.
func quantile[T any](sorted []T, q float64) T { return sorted[int(q*float64(len(sorted)-1)+0.5)] }

// of is the estimate; the zero one until there are enough samples.
func (r *ring) of() Estimate {
	if len(r.samples) < enough {
		return Estimate{}
	}
	r.renew()
	return r.estimate
}

// Of gives the estimate for a mnemonic; all but StarvedBytes is zero until there are enough samples.
func (h *History) Of(mnemonic string) Estimate {
	k := h.kinds[mnemonic]
	if k == nil {
		return Estimate{}
	}
	h.clock++
	k.used = h.clock
	e := k.all.of()
	e.StarvedBytes = k.starved
	return e
}

// reference is the duration that others' are compared with to tell their speeds: the median on this machine, once that is
// known. Compared with each other alone, all speeds and all durations might grow together.
func (h *History) reference(mnemonic string) time.Duration {
	if k := h.kinds[mnemonic]; k != nil && len(k.own.samples) >= enough {
		return k.own.of().Median
	}
	return h.Of(mnemonic).Median
}

// forget drops the mnemonic not used for longest.
func (h *History) forget() {
	oldest, at := uint64(math.MaxUint64), ""
	for name, k := range h.kinds {
		if k.used < oldest {
			oldest, at = k.used, name
		}
	}
	delete(h.kinds, at)
}
