package record

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

func TestIndexAgainstMap(t *testing.T) {
	x, model := newIndex(0), map[Key]place{}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		key := benchKey(random.IntN(20_000))
		p := x.find(&key)
		if p != model[key] {
			t.Fatalf("found place %d, want %d", p, model[key])
		}
		switch {
		case p == 0:
			p = x.add(&key)
			x.pushFront(p)
			model[key] = p
		case random.IntN(2) == 0:
			x.remove(p)
			delete(model, key)
		default:
			x.unlink(p)
			x.pushFront(p)
		}
	}
	if x.count != len(model) {
		t.Errorf("%d entries, want %d", x.count, len(model))
	}
	seen := 0
	for p := x.oldest(); p != 0; p = x.newer(p) {
		if model[x.at(p).key] != p {
			t.Fatal("list of use has an entry that is not there")
		}
		seen++
	}
	if seen != len(model) {
		t.Errorf("list of use has %d entries, want %d", seen, len(model))
	}
	if int(x.high) > 20_000+1 {
		t.Errorf("%d places for at most 20000 entries: places are not used again", x.high)
	}
}

func TestOrderOfUse(t *testing.T) {
	x := newIndex(0)
	var places []place
	for i := range 5 {
		key := benchKey(i)
		p := x.add(&key)
		x.pushFront(p)
		places = append(places, p)
	}
	x.unlink(places[1])
	x.pushFront(places[1])
	x.remove(places[3])
	for i, p := 0, x.oldest(); p != 0; i, p = i+1, x.newer(p) {
		if want := []place{places[0], places[2], places[4], places[1]}[i]; p != want {
			t.Errorf("place %d in order is %d, want %d", i, p, want)
		}
	}
}

// TestGroundKeys checks that keys alike in every part but the last bytes spread over the table.
func TestGroundKeys(t *testing.T) {
	x := newIndex(0)
	for i := range 50_000 {
		key := Key{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
		key[30], key[31], key[32] = byte(i>>16), byte(i>>8), byte(i)
		x.add(&key)
	}
	longest, run := 0, 0
	for _, word := range x.table {
		if run++; word == 0 {
			run = 0
		}
		longest = max(longest, run)
	}
	if longest > 1000 {
		t.Errorf("a probe may take %d steps", longest)
	}
}

func TestEntrySize(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n != 64 {
		t.Errorf("an entry takes %d bytes, want 64", n)
	}
}
