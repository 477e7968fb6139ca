package cid

import (
	"errors"
	"fmt"

	gocid "github.com/ipfs/go-cid"
	multihash "github.com/multiformats/go-multihash"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// ErrInvalid is wrapped by every error about a CID that is none of a blob.
var ErrInvalid = errors.New("invalid CID")

// Of is the CID of the content that d identifies: version 1, codec raw.
func Of(d digest.Digest) gocid.Cid {
	hash := d.Hash()
	return raw(codeOf(d.Function()), hash)
}

// codeOf is the multihash code of a digest function.
func codeOf(fn digest.Function) uint64 {
	if fn == digest.BLAKE3 {
		return multihash.BLAKE3
	}
	return multihash.SHA2_256
}

// raw makes a CID of a hash of 32 bytes.
func raw(code uint64, hash [digest.HashSize]byte) gocid.Cid {
	sum, err := multihash.Encode(hash[:], code)
	if err != nil { // only an unknown code could cause it
		panic("cid: " + err.Error())
	}
	return gocid.NewCidV1(gocid.Raw, sum)
}

// Digest gives the digest of the blob of size bytes that c identifies. Errors wrap ErrInvalid.
func Digest(c gocid.Cid, size int64) (digest.Digest, error) {
	if !c.Defined() || c.Version() != 1 || c.Type() != gocid.Raw || size < 0 {
		return digest.Digest{}, fmt.Errorf("%w: want version 1, codec raw", ErrInvalid)
	}
	sum, err := multihash.Decode(c.Hash())
	if err != nil || sum.Length != digest.HashSize {
		return digest.Digest{}, fmt.Errorf("%w: not a hash of %d bytes", ErrInvalid, digest.HashSize)
	}
	for _, fn := range digest.Functions() {
		if codeOf(fn) == sum.Code {
			return digest.New(fn, [digest.HashSize]byte(sum.Digest), size), nil
		}
	}
	return digest.Digest{}, fmt.Errorf("%w: multihash %#x: %w", ErrInvalid, sum.Code, digest.ErrUnsupported)
}
