package reapi

import (
	"errors"
	"strings"
	"testing"

	"github.com/buildmesh/buildmesh/dht/digest"
)

const (
	abcHash  = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-4, "abc"
	anUpload = "d3b07384-d9a0-4c9b-8a3f-5f1f0a1b2c3d"
)

var abc = digest.SHA256.Of([]byte("abc"))

func blake(t testing.TB, text string) digest.Digest {
	t.Helper()
	return digest.BLAKE3.Of([]byte(text))
}

func TestParseRead(t *testing.T) {
	b := blake(t, "abc")
	for _, c := range []struct {
		name string
		want Resource
	}{
		{"blobs/" + abcHash + "/3", Resource{Digest: abc}},
		{"main/blobs/" + abcHash + "/3", Resource{Instance: "main", Digest: abc}},
		{"a/b/c/blobs/" + abcHash + "/3", Resource{Instance: "a/b/c", Digest: abc}},
		{"blobs/blake3/" + b.Hex() + "/3", Resource{Digest: b}},
		{"i/compressed-blobs/zstd/" + abcHash + "/3", Resource{Instance: "i", Compressor: Zstd, Digest: abc}},
		{"compressed-blobs/deflate/blake3/" + b.Hex() + "/3", Resource{Compressor: Deflate, Digest: b}},
	} {
		if got, err := ParseRead(c.name); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestParseWrite(t *testing.T) {
	b := blake(t, "abc")
	for _, c := range []struct {
		name string
		want Resource
	}{
		{"uploads/u/blobs/" + abcHash + "/3", Resource{Upload: "u", Digest: abc}},
		{"a/b/uploads/u/blobs/" + abcHash + "/3", Resource{Instance: "a/b", Upload: "u", Digest: abc}},
		{"uploads/u/blobs/" + abcHash + "/3/any/thing", Resource{Upload: "u", Digest: abc}},
		{"uploads/u/blobs/" + abcHash + "/3/", Resource{Upload: "u", Digest: abc}},
		{"uploads/u/blobs/blake3/" + b.Hex() + "/3/x", Resource{Upload: "u", Digest: b}},
		{"uploads/u/compressed-blobs/zstd/" + abcHash + "/3", Resource{Upload: "u", Compressor: Zstd, Digest: abc}},
		{"i/uploads/u/compressed-blobs/deflate/blake3/" + b.Hex() + "/3/m", Resource{Instance: "i", Upload: "u", Compressor: Deflate, Digest: b}},
	} {
		if got, err := ParseWrite(c.name); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

// malformed names neither parser takes.
var malformed = []string{
	"", "/", "blobs", "blobs/", "blobs/" + abcHash, "blobs/" + abcHash + "/", "blobs/" + abcHash + "/-3",
	"blobs/" + abcHash + "/03", "blobs/" + abcHash + "/3/x", "blobs/" + strings.ToUpper(abcHash) + "/3",
	"blobs/" + abcHash[1:] + "/3", "blobs/sha256/" + abcHash + "/3", "blobs/sha256tree/" + abcHash + "/3",
	"/blobs/" + abcHash + "/3", "a//blobs/" + abcHash + "/3", "actions/blobs/" + abcHash + "/3",
	"compressed-blobs/" + abcHash + "/3", "compressed-blobs/identity/" + abcHash + "/3",
	"compressed-blobs/brotli/" + abcHash + "/3", "blobs/" + abcHash + "/99999999999999999999",
	"uploads/blobs/" + abcHash + "/3", "uploads//blobs/" + abcHash + "/3", "uploads/u/" + abcHash + "/3",
	"uploads/u/blobs/" + abcHash, "uploads/u/blobs/sha256/" + abcHash + "/3", "/uploads/u/blobs/" + abcHash + "/3",
	"blobs/uploads/u/blobs/" + abcHash + "/3", "uploads/u/compressed-blobs/identity/" + abcHash + "/3",
	strings.Repeat("i", maxInstance+1) + "/blobs/" + abcHash + "/3",
}

func TestMalformedNames(t *testing.T) {
	for _, name := range malformed {
		var field *FieldError
		if r, err := ParseRead(name); !errors.As(err, &field) || field.Field != "resource_name" {
			t.Errorf("read %q: %+v, %v", name, r, err)
		}
		if r, err := ParseWrite(name); !errors.As(err, &field) || field.Field != "resource_name" {
			t.Errorf("write %q: %+v, %v", name, r, err)
		}
	}
}

func TestCheckInstance(t *testing.T) {
	for name, valid := range map[string]bool{
		"": true, "main": true, "a/b/c": true, "über": true, strings.Repeat("a", maxInstance): true,
		"/": false, "a/": false, "/a": false, "a//b": false, "blobs": false, "a/uploads": false, "actions/x": false,
		"actionResults": false, "operations": false, "capabilities": false, "x/compressed-blobs/y": false,
		strings.Repeat("a", maxInstance+1): false,
	} {
		if err := CheckInstance(name); (err == nil) != valid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestBlobName(t *testing.T) {
	b := blake(t, "abc")
	if got := BlobName(abc); got != "blobs/"+abcHash+"/3" {
		t.Error(got)
	}
	if got := BlobName(b); got != "blobs/blake3/"+b.Hex()+"/3" {
		t.Error(got)
	}
	for _, d := range []digest.Digest{abc, b} {
		if r, err := ParseRead(ReadName("a/b", d)); err != nil || r.Digest != d || r.Instance != "a/b" {
			t.Errorf("%s: %+v, %v", d, r, err)
		}
	}
}

// FuzzResourceName shows that what a parser accepts means what the canonical form says.
func FuzzResourceName(f *testing.F) {
	for _, name := range malformed {
		f.Add(name)
	}
	f.Add("a/b/blobs/" + abcHash + "/3")
	f.Add("i/uploads/u/compressed-blobs/zstd/blake3/" + abcHash + "/3/m")
	f.Fuzz(func(t *testing.T, name string) {
		if r, err := ParseRead(name); err == nil && canonical(r) != name {
			t.Errorf("read %q is %+v", name, r)
		}
		if r, err := ParseWrite(name); err == nil {
			prefix := strings.TrimPrefix(r.Instance+"/uploads/", "/") + r.Upload + "/"
			r.Instance = ""
			if want := prefix + canonical(r); name != want && !strings.HasPrefix(name, want+"/") {
				t.Errorf("write %q is %+v, want %q", name, r, want)
			}
		}
	})
}

// canonical is the one name a resource is read by.
func canonical(r Resource) string {
	plain := ReadName(r.Instance, r.Digest)
	if r.Compressor == Identity {
		return plain
	}
	return plain[:len(plain)-len(BlobName(r.Digest))] + "compressed-blobs/" + r.Compressor.String() + strings.TrimPrefix(BlobName(r.Digest), "blobs")
}
