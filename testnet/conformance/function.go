package conformance

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/zeebo/blake3"
)

// Function is a digest function that the suite can compute.
type Function repb.DigestFunction_Value

// The functions that checks name.
const (
	SHA256 = Function(repb.DigestFunction_SHA256)
	BLAKE3 = Function(repb.DigestFunction_BLAKE3)
)

// functionOf tells whether the suite can compute v.
func functionOf(v repb.DigestFunction_Value) (Function, bool) {
	switch v {
	case repb.DigestFunction_SHA256, repb.DigestFunction_BLAKE3, repb.DigestFunction_SHA384,
		repb.DigestFunction_SHA512, repb.DigestFunction_SHA1, repb.DigestFunction_MD5:
		return Function(v), true
	default:
		return 0, false
	}
}

// Proto is the value of digest_function fields.
func (f Function) Proto() repb.DigestFunction_Value { return repb.DigestFunction_Value(f) }

// String is the protocol's name of the function.
func (f Function) String() string { return f.Proto().String() }

// Segment is the function's part of a resource name, with its slash: empty but for BLAKE3.
func (f Function) Segment() string {
	if f == BLAKE3 {
		return "blake3/"
	}
	return ""
}

// Unset is what a client may leave the digest_function field at: UNKNOWN where it can be inferred.
func (f Function) Unset() repb.DigestFunction_Value {
	if f == BLAKE3 {
		return f.Proto()
	}
	return repb.DigestFunction_UNKNOWN
}

// Of is the digest of data.
func (f Function) Of(data []byte) *repb.Digest {
	var sum []byte
	switch f.Proto() {
	case repb.DigestFunction_BLAKE3:
		h := blake3.Sum256(data)
		sum = h[:]
	case repb.DigestFunction_SHA384:
		h := sha512.Sum384(data)
		sum = h[:]
	case repb.DigestFunction_SHA512:
		h := sha512.Sum512(data)
		sum = h[:]
	case repb.DigestFunction_SHA1:
		h := sha1.Sum(data)
		sum = h[:]
	case repb.DigestFunction_MD5:
		h := md5.Sum(data)
		sum = h[:]
	default:
		h := sha256.Sum256(data)
		sum = h[:]
	}
	return &repb.Digest{Hash: hex.EncodeToString(sum), SizeBytes: int64(len(data))}
}

// malformed lists variants of d that are not digests at all, by what is wrong with them.
func malformed(d *repb.Digest) map[string]*repb.Digest {
	return map[string]*repb.Digest{
		"an uppercase hash":       {Hash: strings.ToUpper(d.Hash), SizeBytes: d.SizeBytes},
		"a short hash":            {Hash: d.Hash[:len(d.Hash)-2], SizeBytes: d.SizeBytes},
		"a hash that is not hex":  {Hash: "g" + d.Hash[1:], SizeBytes: d.SizeBytes},
		"an empty hash":           {SizeBytes: d.SizeBytes},
		"a negative size":         {Hash: d.Hash, SizeBytes: -1},
		"a path for a hash":       {Hash: "../../" + d.Hash[6:], SizeBytes: d.SizeBytes},
		"a hash with a final NUL": {Hash: d.Hash[:len(d.Hash)-1] + "\x00", SizeBytes: d.SizeBytes},
	}
}
