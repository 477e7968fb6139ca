package reapi

import (
	"bytes"
	"testing"
)

// FuzzDecompress feeds both decompressors with anything: they give exactly the bytes they were asked
// for or an error, as a whole and as a stream alike.
func FuzzDecompress(f *testing.F) {
	p, err := newPacker()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(p.close)
	for _, c := range Compressors() {
		f.Add(uint8(c), uint16(300), pack(f, c, content(300, 1)))
		f.Add(uint8(c), uint16(0), pack(f, c, nil))
		f.Add(uint8(c), uint16(299), pack(f, c, content(300, 1)))
	}
	f.Fuzz(func(t *testing.T, which uint8, size uint16, data []byte) {
		c := Compressors()[int(which)%2]
		whole, err := p.decompress(c, data, int64(size))
		if err == nil && len(whole) != int(size) {
			t.Fatalf("%s: %d bytes, want %d", c, len(whole), size)
		}
		out := &bounded{left: int(size)}
		streamed := p.expand(c, out, bytes.NewReader(data))
		if out.over {
			if streamed == nil || err == nil {
				t.Errorf("%s: more than %d bytes: %v as a stream, %v as a whole", c, size, streamed, err)
			}
			return
		}
		if fits := streamed == nil && out.left == 0; fits != (err == nil) {
			t.Errorf("%s: %v with %d bytes left as a stream, %v as a whole", c, streamed, out.left, err)
		}
		if err == nil && !bytes.Equal(out.Bytes(), whole) {
			t.Errorf("%s: other bytes as a stream than as a whole", c)
		}
	})
}

// bounded takes a number of bytes and refuses more.
type bounded struct {
	bytes.Buffer
	left int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.over = true
		return 0, errTrailing
	}
	b.left -= len(p)
	return b.Buffer.Write(p)
}

func TestCompressRoundTrip(t *testing.T) {
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for _, n := range []int{0, 1, 1000, 300_000} {
		data := content(n, 1)
		packed, err := p.compress(data)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := p.decompress(Zstd, packed, int64(n)); err != nil || !bytes.Equal(back, data) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
