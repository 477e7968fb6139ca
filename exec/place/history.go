package place

import (
	"math"
	"slices"
	"time"
)

// Bounds of a History.
const (
	maxKinds   = 1024 // mnemonics remembered
	maxSamples = 64   // of one mnemonic, the latest
	enough     = 5    // samples before anything is concluded
)

// History is what actions of each mnemonic needed lately. Durations are those of a machine of speed 1.
type History struct {
	kinds map[string]*kind
	clock uint64 // grows with every use, to forget the least recently used
}

// kind is the history of one mnemonic.
type kind struct {
	used     uint64
	seconds  []float64 // ring
	cores    []float64
	bytes    []float64
	inputs   []float64
	next     int
	estimate Estimate
}

// Estimate is what an action is expected to need. Zero fields are not known.
type Estimate struct {
	Samples     int
	Median, P95 time.Duration // on a machine of speed 1
	Cores       float64       // at the mean, rounded up to whole ones
	MemoryBytes int64         // with a fifth to spare
	InputBytes  int64         // fetched by a peer that has nothing
}

// NewHistory makes an empty one.
func NewHistory() *History { return &History{kinds: map[string]*kind{}} }

// Add notes what an action needed on a machine of a speed.
func (h *History) Add(mnemonic string, s Sample, speed float64) {
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
	k.add(max(s.Duration.Seconds(), 0)*speed, clamp(s.Cores, 0, maxSlots), float64(min(max(s.MemoryBytes, 0), maxMemory)), float64(max(s.InputBytes, 0)))
}

func (k *kind) add(seconds, cores, bytes, inputs float64) {
	if len(k.seconds) < maxSamples {
		k.seconds, k.cores = append(k.seconds, seconds), append(k.cores, cores)
		k.bytes, k.inputs = append(k.bytes, bytes), append(k.inputs, inputs)
	} else {
		k.seconds[k.next], k.cores[k.next], k.bytes[k.next], k.inputs[k.next] = seconds, cores, bytes, inputs
		k.next = (k.next + 1) % maxSamples
	}
	if n := len(k.seconds); n == maxSamples && k.next%8 != 0 && k.estimate.Samples > 0 {
		return // the estimate is renewed with every eighth sample
	}
	times := slices.Sorted(slices.Values(k.seconds))
	k.estimate = Estimate{
		Samples: len(times), Median: seconds2(quantile(times, 0.5)), P95: seconds2(quantile(times, 0.95)),
		Cores:       math.Ceil(quantile(slices.Sorted(slices.Values(k.cores)), 0.5) - 0.25),
		MemoryBytes: int64(quantile(slices.Sorted(slices.Values(k.bytes)), 1) * 1.2),
		InputBytes:  int64(quantile(slices.Sorted(slices.Values(k.inputs)), 0.5)),
	}
}

func seconds2(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// quantile of sorted values; 0 when there are none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// Of gives the estimate for a mnemonic; the zero Estimate until there are enough samples.
func (h *History) Of(mnemonic string) Estimate {
	k := h.kinds[mnemonic]
	if k == nil || len(k.seconds) < enough {
		return Estimate{}
	}
	h.clock++
	k.used = h.clock
	return k.estimate
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
