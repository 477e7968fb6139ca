package buffer

import "testing"

// Buffers have the length asked for and a power of two of room, or exactly the length where no size fits.
func TestPool(t *testing.T) {
	var p Pool
	for length, room := range map[int]int{0: 1 << minTier, 1: 1 << minTier, 1 << minTier: 1 << minTier, 1<<minTier + 1: 2 << minTier, 1 << maxTier: 1 << maxTier, 1<<maxTier + 1: 1<<maxTier + 1} {
		for range 2 {
			b := p.Get(length)
			if len(*b) != length || cap(*b) < room || room <= 1<<maxTier && cap(*b) != room {
				t.Errorf("a buffer for %d bytes has %d and room for %d", length, len(*b), cap(*b))
			}
			*b = (*b)[:0]
			p.Put(b)
		}
	}
}

// A buffer that was put in from elsewhere is never given out shorter than it must be.
func TestForeignBuffer(t *testing.T) {
	var p Pool
	odd := make([]byte, 3000)
	p.Put(&odd)
	for range 3 {
		if b := p.Get(3000); len(*b) != 3000 || cap(*b) != 4096 {
			t.Errorf("a buffer for 3000 bytes has %d and room for %d", len(*b), cap(*b))
		}
	}
}
