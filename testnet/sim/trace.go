package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// act is one action of a build.
type act struct {
	id        int
	initiator int
	mnemonic  string
	seconds   float64 // on a machine of speed 1
	bytes     int64   // of inputs
	outputs   int64   // bytes that go back to the initiator
	root      int     // which inputs
	next      []*act  // wait for it
	waits     int     // for how many

	readyAt float64
	doneAt  float64
	done    bool
	rank    float64 // seconds to the end of the build along the longest path
}

// recorded is a real build, as record writes it.
//
//go:embed testdata/cpp.trace.gz
var recorded []byte

// sample is one action as recorded: what it needed, the target it belongs to, and the earlier ones whose outputs it reads.
type sample struct {
	mnemonic       string
	seconds        float64
	bytes, outputs int64
	target         int
	needs          []int
}

// samples is the recorded trace.
var samples = sync.OnceValue(func() []sample {
	all, err := readTrace(recorded)
	if err != nil {
		panic("testdata/cpp.trace.gz: " + err.Error())
	}
	return all
})

// readTrace reads what record wrote: a line an action, after everything it needs.
func readTrace(packed []byte) (all []sample, err error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		var s sample
		var needs string
		var ms float64
		if _, err := fmt.Sscan(lines.Text(), &s.mnemonic, &ms, &s.bytes, &s.outputs, &s.target, &needs); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		s.seconds = ms / 1000
		for part := range strings.SplitSeq(strings.Trim(needs, "-"), ",") {
			if part == "" {
				continue
			}
			at, err := strconv.Atoi(part)
			if err != nil || at < 0 || at >= len(all) {
				return nil, fmt.Errorf("line %d needs %q", len(all)+1, part)
			}
			s.needs = append(s.needs, at)
		}
		all = append(all, s)
	}
	return all, lines.Err()
}

// newTrace makes about count actions: copies of the recorded build, dealt to the initiators, each action taking up to 30 %
// more or less than recorded.
func newTrace(random *rand.Rand, count, initiators int) []*act {
	build := samples()
	copies := max(initiators, (count+len(build)/2)/len(build))
	var all []*act
	for c := range copies {
		first, targets := len(all), c*len(build)
		for _, s := range build {
			a := &act{
				id: len(all), initiator: c % initiators, mnemonic: s.mnemonic, seconds: s.seconds * (0.7 + 0.6*random.Float64()),
				bytes: s.bytes, outputs: s.outputs, root: targets + s.target, waits: len(s.needs),
			}
			for _, n := range s.needs {
				all[first+n].next = append(all[first+n].next, a)
			}
			all = append(all, a)
		}
	}
	for i := len(all) - 1; i >= 0; i-- {
		a := all[i]
		for _, b := range a.next {
			a.rank = max(a.rank, b.rank)
		}
		a.rank += a.seconds
	}
	return all
}
