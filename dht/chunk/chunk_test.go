package chunk

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
)

// noise is n bytes that look random, the same for the same seed.
func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	rand.NewChaCha8(key).Read(data)
	return data
}

// lengths cuts r to its end.
func lengths(t testing.TB, c *Chunker) (sizes []int, all []byte) {
	t.Helper()
	for {
		data, err := c.Next()
		if err == io.EOF {
			return sizes, all
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(data))
		all = append(all, data...)
	}
}

// plainCut is the specification, byte by byte and without tricks: the length of data's first chunk.
func plainCut(data []byte, minSize, avg, maxSize int, seed uint32) int {
	if len(data) <= minSize {
		return len(data)
	}
	if len(data) > maxSize {
		data = data[:maxSize]
	}
	level := 0
	for 1<<level < avg {
		level++
	}
	hash := uint64(0)
	for i := minSize; i < len(data)&^1; i++ {
		sum := md5.Sum(bytes.Repeat(data[i:i+1], 64))
		hash = hash<<1 + (binary.BigEndian.Uint64(sum[:8]) ^ uint64(seed))
		mask := masks[level+2]
		if i >= avg {
			mask = masks[level-2]
		}
		if hash&mask == 0 {
			return i
		}
	}
	return len(data)
}

func plainLengths(data []byte, minSize, avg, maxSize int, seed uint32) (sizes []int) {
	for len(data) > 0 {
		n := plainCut(data, minSize, avg, maxSize, seed)
		sizes = append(sizes, n)
		data = data[n:]
	}
	return sizes
}

func TestChunker(t *testing.T) {
	p := Params{Average: 4 << 10}
	data := noise(1, 300_001)
	sizes, all := lengths(t, New(bytes.NewReader(data), p))
	if !bytes.Equal(all, data) {
		t.Fatal("the chunks together are not the stream")
	}
	if want := plainLengths(data, 1<<10, 4<<10, 16<<10, 0); !slices.Equal(sizes, want) {
		t.Fatalf("cut into %v, want %v", sizes, want)
	}
	for i, n := range sizes {
		if int64(n) > p.Max() || int64(n) < p.Min() && i < len(sizes)-1 {
			t.Errorf("chunk %d of %d has %d bytes", i, len(sizes), n)
		}
	}
	if mean := len(data) / len(sizes); mean < 3<<10 || mean > 7<<10 {
		t.Errorf("chunks have %d bytes on average", mean)
	}
}

func TestChunkerAgreesWithSpecification(t *testing.T) {
	for _, c := range []struct {
		name    string
		average int
		seed    uint32
		data    []byte
	}{
		{"nothing", 1 << 10, 0, nil},
		{"one byte", 1 << 10, 0, []byte{7}},
		{"exactly the minimum", 1 << 10, 0, noise(2, 256)},
		{"one more than the minimum", 1 << 10, 0, noise(2, 257)},
		{"odd length", 1 << 10, 0, noise(3, 9_999)},
		{"smallest average", MinAverage, 0, noise(4, 100_000)},
		{"seed", 2 << 10, 666, noise(5, 100_000)},
		{"largest seed", 2 << 10, 0xffffffff, noise(5, 100_000)},
		{"zeros", 1 << 10, 0, make([]byte, 20_000)},
		{"text that repeats", 1 << 10, 0, bytes.Repeat([]byte("int main(void) { return 0; }\n"), 3_000)},
		{"average above the step", 128 << 10, 0, noise(6, 700_000)},
	} {
		sizes, all := lengths(t, New(bytes.NewReader(c.data), Params{Average: int64(c.average), Seed: c.seed}))
		want := plainLengths(c.data, c.average/4, c.average, c.average*4, c.seed)
		if !slices.Equal(sizes, want) || !bytes.Equal(all, c.data) {
			t.Errorf("%s: cut into %v, want %v", c.name, sizes, want)
		}
	}
}

func TestZerosAreCutAtMaximum(t *testing.T) {
	sizes, _ := lengths(t, New(bytes.NewReader(make([]byte, 3*4096+1)), Params{Average: 1024}))
	if !slices.Equal(sizes, []int{4096, 4096, 4096, 1}) {
		t.Errorf("cut into %v", sizes)
	}
}

func TestPortionsDoNotMatter(t *testing.T) {
	data := noise(7, 200_000)
	p := Params{Average: 2 << 10}
	want, _ := lengths(t, New(bytes.NewReader(data), p))
	for name, r := range map[string]io.Reader{
		"one byte at a time":    iotest.OneByteReader(bytes.NewReader(data)),
		"half of what is asked": iotest.HalfReader(bytes.NewReader(data)),
		"data with the end":     iotest.DataErrReader(bytes.NewReader(data)),
	} {
		if got, all := lengths(t, New(r, p)); !slices.Equal(got, want) || !bytes.Equal(all, data) {
			t.Errorf("%s: cut into %v", name, got)
		}
	}
}

// What the package is for: a change moves only the cuts near it.
func TestInsertionKeepsOtherChunks(t *testing.T) {
	data := noise(8, 1<<20)
	changed := slices.Concat(data[:500_000], []byte("something new"), data[500_000:])
	known := map[string]bool{}
	count := func(data []byte) (all, shared int) {
		c := New(bytes.NewReader(data), Params{Average: 8 << 10})
		for {
			chunk, err := c.Next()
			if err == io.EOF {
				return all, shared
			}
			all++
			if known[string(chunk)] {
				shared++
			}
			known[string(chunk)] = true
		}
	}
	count(data)
	if all, shared := count(changed); all-shared > 4 {
		t.Errorf("%d of %d chunks changed", all-shared, all)
	}
}

func TestReaderErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, n := range []int{0, 100, 5_000, 50_000} {
		c := New(io.MultiReader(bytes.NewReader(noise(9, n)), iotest.ErrReader(broken)), Params{Average: 1024})
		for {
			_, err := c.Next()
			if err == nil {
				continue
			}
			if err != broken {
				t.Errorf("after %d bytes: %v", n, err)
			}
			break
		}
		if _, err := c.Next(); err != broken {
			t.Errorf("again: %v", err)
		}
	}
	if _, err := New(idleReader{}, Params{}).Next(); err != io.ErrNoProgress {
		t.Errorf("reader without progress: %v", err)
	}
	c := New(bytes.NewReader(nil), Params{})
	for range 2 {
		if _, err := c.Next(); err != io.EOF {
			t.Errorf("end: %v", err)
		}
	}
}

type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

func TestParams(t *testing.T) {
	if p := (Params{}); p.Validate() != nil || p.Min() != 128<<10 || p.Max() != 2<<20 {
		t.Errorf("defaults: %v, %d to %d", p.Validate(), p.Min(), p.Max())
	}
	for _, a := range []int64{MinAverage, MaxAverage} {
		if err := (Params{Average: a}).Validate(); err != nil {
			t.Error(err)
		}
		New(bytes.NewReader(nil), Params{Average: a}) // both masks exist
	}
	for _, a := range []int64{-1, 1, 512, 1025, 3 << 10, 16 << 20} {
		if (Params{Average: a}).Validate() == nil {
			t.Errorf("average %d is accepted", a)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("New accepts what Validate refuses")
		}
	}()
	New(bytes.NewReader(nil), Params{Average: 3})
}

func FuzzChunker(f *testing.F) {
	f.Add([]byte("x"), uint32(0), uint8(1))
	f.Add(noise(10, 6_000), uint32(666), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, seed uint32, repeat uint8) {
		data = bytes.Repeat(data, int(repeat))
		if len(data) > 1<<16 {
			data = data[:1<<16]
		}
		sizes, all := lengths(t, New(bytes.NewReader(data), Params{Average: MinAverage, Seed: seed}))
		if !bytes.Equal(all, data) {
			t.Fatal("the chunks together are not the stream")
		}
		if want := plainLengths(data, 256, 1024, 4096, seed); !slices.Equal(sizes, want) {
			t.Fatalf("cut into %v, want %v", sizes, want)
		}
	})
}

func BenchmarkChunker(b *testing.B) {
	data := noise(11, 64<<20)
	for _, average := range []int64{64 << 10, DefaultAverage} {
		b.Run(fmt.Sprintf("average %d KiB", average>>10), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				c := New(bytes.NewReader(data), Params{Average: average})
				for {
					if _, err := c.Next(); err != nil {
						break
					}
				}
			}
		})
	}
}
