package lease

import (
	"fmt"
	"time"
)

// memory is what was measured of the machine's own memory, beside what a Book has promised of it.
type memory struct {
	available int64 // bytes that could be used without swapping; 0: not known
	reserve   int64 // bytes of them that stay the owner's
	at        time.Time
}

// counts reports whether guests are measured by it.
func (m memory) counts() bool { return m.available > 0 && m.reserve > 0 }

// freeStep is what Free rounds measured memory to, so that what is told of an idle machine does not change all the time.
const freeStep = 256 << 20

// Memory notes how much of the machine's memory is available, in bytes, and how much of it its owner keeps from guests.
// available 0: it is not known; reserve 0: the owner does not mind.
func (b *Book) Memory(now time.Time, available, reserve int64) {
	b.measured = memory{available: available, reserve: reserve, at: now}
	b.offer(now)
}

// available is what was measured without what will be used of it: by offered slots, and by actions that have begun since, if at
// all.
func (b *Book) available() int64 {
	bytes := b.measured.available
	for _, x := range b.runs {
		if x.phase == reserved || x.phase == running && !x.began.Before(b.measured.at) {
			bytes -= x.bytes
		}
	}
	for _, o := range b.tickets.offers {
		bytes -= o.bytes
	}
	return bytes
}

// noMemory says why the measured memory is too little for a guest; "" when it is enough.
func (b *Book) noMemory(bytes int64) string {
	if !b.measured.counts() {
		return ""
	}
	available := b.available()
	if available >= b.measured.reserve+bytes {
		return ""
	}
	return fmt.Sprintf("only %d MiB of memory are free, of %d MiB for its owner and %d MiB for the action",
		max(available, 0)>>20, b.measured.reserve>>20, bytes>>20)
}

// freeMemory is the memory that a guest may ask for.
func (b *Book) freeMemory() int64 {
	free := max(0, b.freeBytes)
	if !b.measured.counts() {
		return free
	}
	return min(free, max(0, b.available()-b.measured.reserve)/freeStep*freeStep)
}

// hopeless reports whether a guest that asks for so much memory would not get it if all that runs here ended.
func (b *Book) hopeless(bytes int64) bool {
	return b.measured.counts() && bytes > b.measured.available-b.measured.reserve+b.bytes-b.freeBytes
}
