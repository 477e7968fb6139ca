package buffer

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

// The smallest and largest buffers that are pooled, as powers of two. The largest holds the largest message of any of our
// servers, so that only absurd ones are allocated afresh.
const (
	minTier = 10
	maxTier = 23
)

// Pool recycles buffers in power-of-two tiers. Unlike gRPC's default it hands out buffers with old
// content: clearing them costs a tenth of a stream's throughput. Every user here fills what it gets.
// Safe for concurrent use; the zero value is ready.
type Pool struct {
	tiers [maxTier + 1]sync.Pool
}

var _ mem.BufferPool = (*Pool)(nil)

// Get gives a buffer of n bytes with arbitrary content.
func (p *Pool) Get(n int) *[]byte {
	tier := max(minTier, bits.Len(uint(max(n, 1)-1)))
	if tier > maxTier {
		b := make([]byte, n)
		return &b
	}
	if b, ok := p.tiers[tier].Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<tier)
	return &b
}

// Put takes a buffer back that Get gave.
func (p *Pool) Put(b *[]byte) {
	c := cap(*b)
	if tier := bits.Len(uint(c)) - 1; tier >= minTier && tier <= maxTier && c == 1<<tier {
		p.tiers[tier].Put(b)
	}
}
