package record

import "hash/maphash"

// place numbers an entry in the slab. Place 0 is the sentinel of the list of use.
type place = uint32

// Entry flags.
const (
	flagExternal = 1 << iota // the value is a file of the owner's
	flagDoubled              // the owner keeps a second copy
	flagPinned               // not in the list of use
	flagUsed                 // the place holds an entry
)

// entry is what the index knows about a value: 64 bytes, no pointers, so that a million of them
// cost the garbage collector nothing.
type entry struct {
	key     Key
	flags   uint8
	segment uint32
	offset  uint32
	used    uint32 // in ticks
	prev    place
	next    place
	size    int64
}

const (
	chunkBits = 12
	chunkSize = 1 << chunkBits
)

// index maps keys to entries and orders them by use. The table holds hash and place in one word, so
// that a probe touches the slab only where the hash agrees, and moving words needs no slab at all.
// The hash is seeded per process: ground keys cannot make probes long. Not safe for concurrent use.
type index struct {
	seed   maphash.Seed
	table  []uint64 // hash << 32 | place; 0 is empty
	mask   uint32
	chunks []*[chunkSize]entry
	spare  place // head of the list of unused places, linked by next
	high   place // first place never used
	count  int
}

func newIndex(expected int) *index {
	size := 1 << 10
	for expected*4 > size*3 {
		size *= 2
	}
	x := &index{seed: maphash.MakeSeed(), table: make([]uint64, size), mask: uint32(size - 1), high: 1}
	x.chunks = append(x.chunks, new([chunkSize]entry))
	return x
}

// at gives the entry at a place; the pointer is good until the place is freed.
func (x *index) at(p place) *entry { return &x.chunks[p>>chunkBits][p&(chunkSize-1)] }

func (x *index) hash(key *Key) uint32 { return uint32(maphash.Bytes(x.seed, key[:])) }

// find gives the place of key, or 0.
func (x *index) find(key *Key) place {
	h := x.hash(key)
	for i := h & x.mask; ; i = (i + 1) & x.mask {
		word := x.table[i]
		if word == 0 {
			return 0
		}
		if uint32(word>>32) == h && x.at(place(word)).key == *key {
			return place(word)
		}
	}
}

// add makes an entry for a key that is not in the index and gives its place. The entry is not in
// the list of use.
func (x *index) add(key *Key) place {
	if (x.count+1)*4 > len(x.table)*3 {
		x.grow()
	}
	p := x.spare
	if p != 0 {
		x.spare = x.at(p).next
	} else {
		p = x.high
		x.high++
		if int(p>>chunkBits) == len(x.chunks) {
			x.chunks = append(x.chunks, new([chunkSize]entry))
		}
	}
	*x.at(p) = entry{key: *key, flags: flagUsed}
	x.store(uint64(x.hash(key))<<32 | uint64(p))
	x.count++
	return p
}

// store puts a word into the first empty cell from its home.
func (x *index) store(word uint64) {
	i := uint32(word>>32) & x.mask
	for x.table[i] != 0 {
		i = (i + 1) & x.mask
	}
	x.table[i] = word
}

func (x *index) grow() {
	old := x.table
	x.table = make([]uint64, 2*len(old))
	x.mask = uint32(len(x.table) - 1)
	for _, word := range old {
		if word != 0 {
			x.store(word)
		}
	}
}

// remove forgets the entry at p, which is in the list of use unless it is pinned.
func (x *index) remove(p place) {
	e := x.at(p)
	if e.flags&flagPinned == 0 {
		x.unlink(p)
	}
	word := uint64(x.hash(&e.key))<<32 | uint64(p)
	i := uint32(word>>32) & x.mask
	for x.table[i] != word {
		i = (i + 1) & x.mask
	}
	// Close the gap: every later word of the run that may stand at i moves there (Knuth 6.4 R).
	for j := (i + 1) & x.mask; x.table[j] != 0; j = (j + 1) & x.mask {
		home := uint32(x.table[j]>>32) & x.mask
		if (j-home)&x.mask >= (j-i)&x.mask {
			x.table[i] = x.table[j]
			i = j
		}
	}
	x.table[i] = 0
	*e = entry{next: x.spare}
	x.spare = p
	x.count--
}

// pushFront makes the entry at p the most recently used; it must not be in the list.
func (x *index) pushFront(p place) {
	head := x.at(0)
	e := x.at(p)
	e.prev, e.next = 0, head.next
	x.at(head.next).prev = p
	head.next = p
	if head.prev == 0 {
		head.prev = p
	}
}

// unlink takes the entry at p out of the list of use.
func (x *index) unlink(p place) {
	e := x.at(p)
	x.at(e.prev).next = e.next
	x.at(e.next).prev = e.prev
}

// oldest gives the least recently used place, or 0; newer the next one towards the front, or 0.
func (x *index) oldest() place       { return x.at(0).prev }
func (x *index) newer(p place) place { return x.at(p).prev }
func (x *index) memoryBytes() (n int64) {
	return int64(len(x.table))*8 + int64(len(x.chunks))*chunkSize*64
}
