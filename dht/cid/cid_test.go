package cid

import (
	"errors"
	"testing"

	gocid "github.com/ipfs/go-cid"
	multihash "github.com/multiformats/go-multihash"

	"github.com/buildmesh/buildmesh/dht/digest"
)

func TestDigestAndBack(t *testing.T) {
	for _, fn := range digest.Functions() {
		d := fn.Of([]byte("abc"))
		got, err := Digest(Of(d), d.Size())
		if err != nil || got != d {
			t.Errorf("%s: %v came back as %v, %v", fn, d, got, err)
		}
	}
	// The CID that other tools give `echo -n abc`: raw leaf, sha2-256, base32.
	const known = "bafkreif2pall7dybz7vecqka3zo24irdwabwdi4wc55jznaq75q7eaavvu"
	if got := Of(digest.SHA256.Of([]byte("abc"))).String(); got != known {
		t.Errorf("CID of abc is %s, want %s", got, known)
	}
}

func TestDigestRefuses(t *testing.T) {
	sum, _ := multihash.Sum([]byte("abc"), multihash.SHA2_512, -1)
	short, _ := multihash.Encode([]byte("abc"), multihash.SHA2_256)
	good := Of(digest.SHA256.Of([]byte("abc")))
	for name, c := range map[string]gocid.Cid{
		"undefined":        {},
		"version 0":        gocid.NewCidV0(good.Hash()),
		"another codec":    gocid.NewCidV1(gocid.DagProtobuf, good.Hash()),
		"another function": gocid.NewCidV1(gocid.Raw, sum),
		"a short hash":     gocid.NewCidV1(gocid.Raw, short),
	} {
		if d, err := Digest(c, 3); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
	if _, err := Digest(good, -1); !errors.Is(err, ErrInvalid) {
		t.Errorf("negative size: %v", err)
	}
}

func TestKeys(t *testing.T) {
	ours, theirs := NewKeyer([]byte("ours")), NewKeyer([]byte("theirs"))
	d := digest.SHA256.Of([]byte("abc"))
	seen := map[Key]string{}
	for name, key := range map[string]Key{
		"blob":                ours.Blob(d),
		"another size":        ours.Blob(digest.New(digest.SHA256, d.Hash(), 4)),
		"another function":    ours.Blob(digest.New(digest.BLAKE3, d.Hash(), 3)),
		"another mesh's blob": theirs.Blob(d),
		"result":              ours.Result(d, [32]byte{}),
		"under another root":  ours.Result(d, [32]byte{1}),
		"another mesh's":      theirs.Result(d, [32]byte{}),
	} {
		if other, taken := seen[key]; taken {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[key] = name
	}
	if ours.Blob(d) != NewKeyer([]byte("ours")).Blob(d) {
		t.Error("two keyers of one secret differ")
	}
	if c := ours.Blob(d).CID(); c.Type() != gocid.Raw || len(c.Hash()) != 34 {
		t.Errorf("CID of a key is %s", c)
	}
}

func FuzzDigest(f *testing.F) {
	f.Add(Of(digest.BLAKE3.Of(nil)).Bytes(), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		c, err := gocid.Cast(b)
		if err != nil {
			return
		}
		if d, err := Digest(c, size); err == nil && !Of(d).Equals(c) {
			t.Errorf("%x came back as %x", b, Of(d).Bytes())
		}
	})
}

func BenchmarkKey(b *testing.B) {
	k, d := NewKeyer([]byte("ours")), digest.SHA256.Of([]byte("abc"))
	b.ReportAllocs()
	for b.Loop() {
		k.Result(d, [32]byte{1})
	}
}
