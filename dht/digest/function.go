package digest

import (
	"crypto/sha256"
	"fmt"
	"hash"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/zeebo/blake3"
)

// Function names the algorithm a hash was made with. The zero value is SHA256.
type Function uint8

// The functions a node computes and serves.
const (
	SHA256 Function = iota // FIPS 180-4
	BLAKE3                 // BLAKE3 with 256 bits of output
)

// Functions lists every supported function, the default first.
func Functions() []Function { return []Function{SHA256, BLAKE3} }

// String gives the function's name as it stands in resource names: "sha256", "blake3".
func (f Function) String() string {
	switch f {
	case SHA256:
		return "sha256"
	case BLAKE3:
		return "blake3"
	default:
		return fmt.Sprintf("function(%d)", uint8(f))
	}
}

// Proto gives the function's protobuf value.
func (f Function) Proto() repb.DigestFunction_Value {
	if f == BLAKE3 {
		return repb.DigestFunction_BLAKE3
	}
	return repb.DigestFunction_SHA256
}

// FunctionFromProto resolves the digest_function field of a request.
//
// An unset field means SHA256: by the protocol an unset function is inferred from the hash length
// among the functions that have no segment of their own in resource names, and of those only SHA256
// is supported; 64 hex digits are therefore never BLAKE3. Errors: ErrUnsupported.
func FunctionFromProto(v repb.DigestFunction_Value) (Function, error) {
	switch v {
	case repb.DigestFunction_UNKNOWN, repb.DigestFunction_SHA256:
		return SHA256, nil
	case repb.DigestFunction_BLAKE3:
		return BLAKE3, nil
	default:
		return 0, fmt.Errorf("digest function %s: %w", v, ErrUnsupported)
	}
}

// Hasher computes the Digest of the bytes written to it. Write never fails.
// A Hasher is not safe for concurrent use.
type Hasher struct {
	fn   Function
	sum  hash.Hash
	size int64
}

// NewHasher starts a Digest of no bytes.
func (f Function) NewHasher() *Hasher {
	if f == BLAKE3 {
		return &Hasher{fn: f, sum: blake3.New()}
	}
	return &Hasher{fn: f, sum: sha256.New()}
}

// Write adds p. It always returns len(p) and nil.
func (h *Hasher) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	return h.sum.Write(p)
}

// Size is the number of bytes written so far.
func (h *Hasher) Size() int64 { return h.size }

// Digest is the digest of all bytes written so far; more may be written after.
func (h *Hasher) Digest() Digest {
	d := Digest{size: h.size, fn: h.fn}
	h.sum.Sum(d.hash[:0])
	return d
}

// Reset forgets all bytes written.
func (h *Hasher) Reset() {
	h.sum.Reset()
	h.size = 0
}

// Of is the digest of data.
func (f Function) Of(data []byte) Digest {
	d := Digest{size: int64(len(data)), fn: f}
	if f == BLAKE3 {
		d.hash = blake3.Sum256(data)
	} else {
		d.hash = sha256.Sum256(data)
	}
	return d
}

// Empty is the digest of no bytes.
func (f Function) Empty() Digest { return f.Of(nil) }
