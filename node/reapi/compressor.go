package reapi

import (
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// Compressor is a compression of blobs on the wire. The zero value is none.
type Compressor uint8

// The compressors a node speaks.
const (
	Identity Compressor = iota
	Zstd                // RFC 8878
	Deflate             // RFC 1951, raw
)

// Compressors lists what a node compresses and decompresses, besides Identity.
func Compressors() []Compressor { return []Compressor{Zstd, Deflate} }

// String gives the compressor's segment in resource names.
func (c Compressor) String() string {
	switch c {
	case Identity:
		return "identity"
	case Zstd:
		return "zstd"
	case Deflate:
		return "deflate"
	default:
		return fmt.Sprintf("compressor(%d)", uint8(c))
	}
}

// Proto gives the compressor's protobuf value.
func (c Compressor) Proto() repb.Compressor_Value {
	switch c {
	case Zstd:
		return repb.Compressor_ZSTD
	case Deflate:
		return repb.Compressor_DEFLATE
	default:
		return repb.Compressor_IDENTITY
	}
}

// parseCompressor reads a resource name's segment; identity has none.
func parseCompressor(segment string) (Compressor, error) {
	for _, c := range Compressors() {
		if segment == c.String() {
			return c, nil
		}
	}
	return Identity, fmt.Errorf("compressor %q is not supported", segment)
}

// compressorFromProto reads a request's field.
func compressorFromProto(v repb.Compressor_Value) (Compressor, error) {
	if v == repb.Compressor_IDENTITY {
		return Identity, nil
	}
	for _, c := range Compressors() {
		if v == c.Proto() {
			return c, nil
		}
	}
	return Identity, fmt.Errorf("compressor %s is not supported", v)
}
