package digest

import (
	"errors"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

const abcHash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-4, "abc"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, hash string
		size       int64
		valid      bool
	}{
		{"good", abcHash, 3, true},
		{"another size is still well formed", abcHash, 4, true},
		{"upper case", strings.ToUpper(abcHash), 3, false},
		{"short", abcHash[:62], 3, false},
		{"long", abcHash + "00", 3, false},
		{"not hexadecimal", "g" + abcHash[1:], 3, false},
		{"empty", "", 0, false},
		{"negative size", abcHash, -1, false},
		{"multi-byte character", "é" + abcHash[2:], 3, false},
	} {
		d, err := Parse(SHA256, c.hash, c.size)
		if c.valid != (err == nil) {
			t.Errorf("%s: error %v, want valid %v", c.name, err, c.valid)
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v does not wrap ErrInvalid", c.name, err)
		}
		if err == nil && (d.Hex() != c.hash || d.Size() != c.size) {
			t.Errorf("%s: came back as %s", c.name, d)
		}
	}
}

func TestKnownHashes(t *testing.T) {
	if got := SHA256.Of([]byte("abc")).Hex(); got != abcHash {
		t.Errorf("SHA256 of abc is %s", got)
	}
	const emptyBlake3 = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" // BLAKE3 test vectors, length 0
	if got := BLAKE3.Empty().Hex(); got != emptyBlake3 {
		t.Errorf("BLAKE3 of nothing is %s", got)
	}
	for _, fn := range Functions() {
		h := fn.NewHasher()
		for _, part := range []string{"a", "", "bc"} {
			if _, err := h.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if h.Digest() != fn.Of([]byte("abc")) {
			t.Errorf("%s: written in parts %s, at once %s", fn, h.Digest(), fn.Of([]byte("abc")))
		}
		h.Reset()
		if !h.Digest().IsEmpty() {
			t.Errorf("%s: after Reset %s is not the empty digest", fn, h.Digest())
		}
	}
}

func TestIdentityIsHashSizeAndFunction(t *testing.T) {
	a := SHA256.Of([]byte("abc"))
	if b := New(SHA256, a.Hash(), 4); a == b {
		t.Error("another size compares equal")
	}
	if b := New(BLAKE3, a.Hash(), 3); a == b {
		t.Error("another function compares equal")
	}
	if New(SHA256, a.Hash(), 0).IsEmpty() {
		t.Error("size 0 with a foreign hash passes for the empty blob")
	}
	if (Digest{}).IsEmpty() {
		t.Error("the zero Digest passes for the empty blob")
	}
}

func TestFunctionFromProto(t *testing.T) {
	if fn, err := FunctionFromProto(repb.DigestFunction_UNKNOWN); err != nil || fn != SHA256 {
		t.Errorf("unset: %v, %v", fn, err)
	}
	for _, want := range Functions() {
		if fn, err := FunctionFromProto(want.Proto()); err != nil || fn != want {
			t.Errorf("%s came back as %v, %v", want, fn, err)
		}
	}
	if _, err := FunctionFromProto(repb.DigestFunction_MD5); !errors.Is(err, ErrUnsupported) {
		t.Errorf("MD5: %v", err)
	}
}

func FuzzParseString(f *testing.F) {
	f.Add(abcHash + "/3")
	f.Add(abcHash + "/-1")
	f.Add("/")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseString(SHA256, s); err == nil && d.String() != s {
			t.Errorf("%q parses as %s", s, d)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(SHA256, abcHash, 3); err != nil {
			b.Fatal(err)
		}
	}
}
