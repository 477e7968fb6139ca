package digest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// Size of a hash in bytes, and in lowercase hexadecimal digits.
const (
	HashSize = 32
	HexSize  = 2 * HashSize
)

var (
	// ErrInvalid is wrapped by every error about a malformed hash or size.
	ErrInvalid = errors.New("invalid digest")
	// ErrUnsupported is wrapped by every error about a digest function this node does not compute.
	ErrUnsupported = errors.New("unsupported digest function")
)

// Digest identifies content: hash, size in bytes, and the function that made the hash.
// The zero value is no content's digest (not even the empty blob's) and reports IsZero.
type Digest struct {
	hash [HashSize]byte
	size int64
	fn   Function
}

// New makes a Digest from its parts. It panics when size is negative, which only a programmer's
// error can cause: sizes from outside pass through Parse or FromProto.
func New(fn Function, hash [HashSize]byte, size int64) Digest {
	if size < 0 {
		panic("digest: negative size")
	}
	return Digest{hash: hash, size: size, fn: fn}
}

// Parse validates a hash in lowercase hexadecimal and a size in bytes. Errors wrap ErrInvalid.
func Parse(fn Function, hash string, size int64) (Digest, error) {
	if size < 0 {
		return Digest{}, fmt.Errorf("size %d is negative: %w", size, ErrInvalid)
	}
	d := Digest{size: size, fn: fn}
	if len(hash) != HexSize {
		return Digest{}, fmt.Errorf("hash has %d characters, want %d: %w", len(hash), HexSize, ErrInvalid)
	}
	for i := range d.hash {
		hi, lo := nibble[hash[2*i]], nibble[hash[2*i+1]]
		if hi|lo > 0xf {
			return Digest{}, fmt.Errorf("hash %q is not lowercase hexadecimal: %w", hash, ErrInvalid)
		}
		d.hash[i] = hi<<4 | lo
	}
	return d, nil
}

// nibble maps a lowercase hexadecimal digit to its value and every other byte to 0xff.
var nibble = func() (table [256]byte) {
	for i := range table {
		table[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		table[c] = byte(i)
	}
	return table
}()

// ParseString reads the form "hash/size" that String writes. Errors wrap ErrInvalid.
func ParseString(fn Function, s string) (Digest, error) {
	hash, size, found := strings.Cut(s, "/")
	if !found {
		return Digest{}, fmt.Errorf("%q is not hash/size: %w", s, ErrInvalid)
	}
	n, err := ParseSize(size)
	if err != nil {
		return Digest{}, err
	}
	return Parse(fn, hash, n)
}

// ParseSize reads a size as resource names write it: decimal digits, no sign, no leading zero,
// at most the largest int64. Errors wrap ErrInvalid.
func ParseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s || n < 0 {
		return 0, fmt.Errorf("size %q is not a decimal number: %w", s, ErrInvalid)
	}
	return n, nil
}

// FromProto validates a protobuf digest made by fn; a nil message is invalid. Errors wrap ErrInvalid.
func FromProto(fn Function, p *repb.Digest) (Digest, error) {
	if p == nil {
		return Digest{}, fmt.Errorf("digest is missing: %w", ErrInvalid)
	}
	return Parse(fn, p.Hash, p.SizeBytes)
}

// Proto gives the protobuf form. The function is not part of it.
func (d Digest) Proto() *repb.Digest {
	return &repb.Digest{Hash: d.Hex(), SizeBytes: d.size}
}

// Protos gives the protobuf forms.
func Protos(ds []Digest) []*repb.Digest {
	out := make([]*repb.Digest, len(ds))
	for i, d := range ds {
		out[i] = d.Proto()
	}
	return out
}

// Hash is the raw hash.
func (d Digest) Hash() [HashSize]byte { return d.hash }

// Hex is the hash in lowercase hexadecimal, HexSize characters.
func (d Digest) Hex() string { return hex.EncodeToString(d.hash[:]) }

// Size is the content's length in bytes.
func (d Digest) Size() int64 { return d.size }

// Function made the hash.
func (d Digest) Function() Function { return d.fn }

// IsZero reports whether d is the zero Digest, which identifies nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// IsEmpty reports whether d has size 0: by the protocol the empty blob always exists.
func (d Digest) IsEmpty() bool { return d.size == 0 && d == d.fn.Empty() }

// String is "hash/size", the form of logs and resource names.
func (d Digest) String() string { return d.Hex() + "/" + strconv.FormatInt(d.size, 10) }

// Short is an abbreviation for people: eight hexadecimal digits, two dots and the size.
func (d Digest) Short() string {
	return hex.EncodeToString(d.hash[:4]) + "../" + strconv.FormatInt(d.size, 10)
}
