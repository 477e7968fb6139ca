package record

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestLineRoundTrip(t *testing.T) {
	want := line{kindAdopt, flagExternal | flagDoubled, benchKey(7), 0xfffffffe, 0x89abcdef, 1 << 50}
	data := want.append([]byte("before"))[6:]
	if len(data) != lineSize {
		t.Fatalf("a line takes %d bytes, want %d", len(data), lineSize)
	}
	var got line
	if !got.decode(data) || got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i := range data {
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << bit
			if got.decode(bad) {
				t.Fatalf("bit %d of byte %d may flip unseen", bit, i)
			}
		}
	}
}

func TestFrameRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 7, 8, 9, 100, 4096} {
		key := benchKey(size)
		data := appendFrame(nil, &key, testValue(1, size))
		if int64(len(data)) != frameSize(int64(size)) {
			t.Errorf("frame of %d takes %d, want %d", size, len(data), frameSize(int64(size)))
		}
		gotKey, value, err := decodeFrame(append(data, "what follows"...))
		if err != nil || gotKey != key || !bytes.Equal(value, testValue(1, size)) {
			t.Errorf("frame of %d: %v", size, err)
		}
		for i := range frameHeader - 3 + size { // all but padding
			if i == 0 && size == 0 {
				continue
			}
			bad := bytes.Clone(data)
			at := i
			if i >= frameHeader-3 {
				at = i + 3
			}
			bad[at] ^= 0x10
			if _, _, err := decodeFrame(bad); err == nil {
				t.Fatalf("byte %d of a frame of %d may change unseen", at, size)
			}
		}
		for cut := range frameHeader + size {
			if _, _, err := decodeFrame(data[:cut]); err == nil {
				t.Fatalf("a frame of %d cut at %d is taken", size, cut)
			}
		}
	}
}

func FuzzFrame(f *testing.F) {
	key := benchKey(1)
	f.Add(appendFrame(nil, &key, []byte("value")))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, value, err := decodeFrame(data)
		if err != nil {
			return
		}
		again := appendFrame(nil, &key, value)
		if got, back, err := decodeFrame(again); err != nil || got != key || !bytes.Equal(back, value) {
			t.Errorf("a frame that was read cannot be written: %v", err)
		}
	})
}

// FuzzJournal opens a log whose journal is arbitrary: it must refuse or work, and never give a
// value that is not the key's.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	l, err := Open(dir, Options{SyncEvery: -1, Owner: newOwner(), Files: calmFiles{}})
	must(f, err)
	for i := range 5 {
		put(f, l, i, 100*i)
	}
	must(f, l.Close())
	whole, err := os.ReadFile(filepath.Join(dir, "journal"))
	must(f, err)
	segment, err := os.ReadFile(segmentPath(dir, 0))
	must(f, err)
	f.Add(whole)
	f.Add(whole[:len(whole)-13])
	f.Add(bytes.Repeat(whole, 2))
	f.Fuzz(func(t *testing.T, journal []byte) {
		dir := t.TempDir()
		// Checksums are no secret: mend them, so that the fuzzer reaches what they protect.
		for at := 0; at+lineSize <= len(journal) && len(journal) > 3*lineSize; at += lineSize {
			if raw := journal[at : at+lineSize]; raw[0]&1 == 1 {
				n := line{kind: kind(raw[4]), flags: raw[5], key: Key(raw[6:]), segment: uint32(raw[40]), offset: uint32(raw[44]) << 3, size: int64(raw[48])}
				journal = append(n.append(journal[:at:at]), journal[at+lineSize:]...)
			}
		}
		must(t, os.WriteFile(filepath.Join(dir, "journal"), journal, 0o600))
		must(t, os.WriteFile(segmentPath(dir, 0), segment, 0o600))
		l, err := Open(dir, Options{SyncEvery: -1, Owner: newOwner(), Files: calmFiles{}})
		if err != nil {
			return
		}
		defer l.Close()
		for i := range 5 {
			values, _ := l.Get([]Key{benchKey(i)})
			if values != nil && values[0].Data != nil && !bytes.Equal(values[0].Data, testValue(i, 100*i)) {
				t.Errorf("value %d is wrong", i)
			}
		}
		put(t, l, 99, 50)
		wantValue(t, l, 99, 50)
	})
}
