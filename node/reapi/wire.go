package reapi

import (
	"encoding/hex"
	"errors"
	"unicode/utf8"
	"unsafe"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// errWire is a message that is not well-formed protobuf.
var errWire = errors.New("malformed protobuf message")

// errUTF8 is a string field that is not UTF-8, which protobuf refuses too.
var errUTF8 = errors.New("string field is not valid UTF-8")

// consumeTag reads a field's number and type and gives their length, negative when malformed.
func consumeTag(b []byte) (protowire.Number, protowire.Type, int) {
	num, typ, n := protowire.ConsumeTag(b)
	if num > protowire.MaxValidNumber { // which protowire leaves to its callers
		n = -1
	}
	return num, typ, n
}

// wireDigest is a Digest message as it came: not validated, sharing the message's bytes.
type wireDigest struct {
	hash []byte
	size int64
}

// merge reads a Digest message into w, as protobuf merges a repeated occurrence of the same field.
func (w *wireDigest) merge(b []byte) error {
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		switch {
		case num == 1 && typ == protowire.BytesType:
			if w.hash, n = protowire.ConsumeBytes(b); n >= 0 && !utf8.Valid(w.hash) {
				return errUTF8
			}
		case num == 2 && typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			w.size = int64(v)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
	}
	return nil
}

// digest validates w as a digest made by fn.
func (w wireDigest) digest(fn digest.Function) (digest.Digest, error) {
	// Parse keeps no reference to the string; its error quotes a copy.
	return digest.Parse(fn, unsafe.String(unsafe.SliceData(w.hash), len(w.hash)), w.size)
}

// proto gives w as a generated message, a copy.
func (w wireDigest) proto() *repb.Digest {
	return &repb.Digest{Hash: string(w.hash), SizeBytes: w.size}
}

// The tags of the fields that are encoded by hand: number<<3 | type.
const (
	tagDigestHash = 1<<3 | byte(protowire.BytesType)
	tagDigestSize = 2<<3 | byte(protowire.VarintType)
)

// appendDigest appends d as a Digest message in a field with the given tag byte.
func appendDigest(b []byte, tag byte, d digest.Digest) []byte {
	b = append(b, tag, byte(digestLen(d)), tagDigestHash, digest.HexSize)
	b = appendHex(b, d)
	if d.Size() != 0 {
		b = append(b, tagDigestSize)
		b = protowire.AppendVarint(b, uint64(d.Size()))
	}
	return b
}

// digestLen is the length of d as a Digest message: under 128, so that its length is one byte.
func digestLen(d digest.Digest) int {
	n := 2 + digest.HexSize
	if d.Size() != 0 {
		n += 1 + protowire.SizeVarint(uint64(d.Size()))
	}
	return n
}

// maxDigestField bounds a Digest message with tag and length.
const maxDigestField = 2 + 2 + digest.HexSize + 1 + 10

// appendHex appends d's hash in lowercase hexadecimal.
func appendHex(b []byte, d digest.Digest) []byte {
	hash := d.Hash()
	return hex.AppendEncode(b, hash[:])
}

// appendBytesField appends bytes in a field with the given tag byte, nothing for none.
func appendBytesField(b []byte, tag byte, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(append(b, tag), v)
}
