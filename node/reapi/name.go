package reapi

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// maxInstance is the longest instance name accepted, in bytes.
const maxInstance = 256

// Resource is what a ByteStream resource name names.
type Resource struct {
	Instance   string
	Upload     string // the uuid segment of a write; empty for a read
	Compressor Compressor
	Digest     digest.Digest // of the uncompressed bytes
}

// CheckInstance validates an instance name: opaque, any number of segments, possibly empty, but no
// segment may be empty or one of the protocol's keywords. Errors are *FieldError.
//
// Source: remote_execution.proto, service ContentAddressableStorage, "instance_name".
func CheckInstance(name string) error {
	if name == "" {
		return nil
	}
	if len(name) > maxInstance {
		return invalid("instance_name", "%d bytes are more than %d", len(name), maxInstance)
	}
	rest, more := name, true
	for more {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		switch segment {
		case "":
			return invalid("instance_name", "%q has an empty segment", name)
		case "blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs":
			return invalid("instance_name", "%q has the reserved segment %q", name, segment)
		}
	}
	return nil
}

// ParseRead reads the name of a blob to read: [instance/]blobs/[function/]hash/size or
// [instance/]compressed-blobs/compressor/[function/]hash/size. Errors are *FieldError.
func ParseRead(name string) (Resource, error) {
	segments := strings.Split(name, "/")
	at := find(segments, "blobs", "compressed-blobs")
	if at < 0 {
		return Resource{}, invalid("resource_name", "%q has no segment blobs or compressed-blobs", name)
	}
	r, rest, err := parseBlob(segments[at:])
	if err != nil {
		return Resource{}, invalid("resource_name", "%q: %v", name, err)
	}
	if len(rest) != 0 {
		return Resource{}, invalid("resource_name", "%q goes on after the size", name)
	}
	r.Instance = strings.Join(segments[:at], "/")
	return r, checkResourceInstance(name, r.Instance, at)
}

// ParseWrite reads the name of a blob to write: [instance/]uploads/uuid/ and then as ParseRead, with
// anything after the size. Errors are *FieldError.
func ParseWrite(name string) (Resource, error) {
	segments := strings.Split(name, "/")
	at := find(segments, "uploads", "uploads")
	if at < 0 || len(segments) < at+3 {
		return Resource{}, invalid("resource_name", "%q is not uploads/uuid/blobs/hash/size", name)
	}
	if segments[at+1] == "" {
		return Resource{}, invalid("resource_name", "%q has an empty uuid", name)
	}
	r, _, err := parseBlob(segments[at+2:])
	if err != nil {
		return Resource{}, invalid("resource_name", "%q: %v", name, err)
	}
	r.Instance, r.Upload = strings.Join(segments[:at], "/"), segments[at+1]
	return r, checkResourceInstance(name, r.Instance, at)
}

// checkResourceInstance validates the n segments of an instance inside a resource name.
func checkResourceInstance(name, instance string, n int) error {
	if n == 1 && instance == "" {
		return invalid("resource_name", "%q begins with a slash", name)
	}
	if err := CheckInstance(instance); err != nil {
		return invalid("resource_name", "%q: %v", name, err)
	}
	return nil
}

// find gives the index of the first segment that is a or b, or -1.
func find(segments []string, a, b string) int {
	for i, s := range segments {
		if s == a || s == b {
			return i
		}
	}
	return -1
}

// parseBlob reads blobs/[function/]hash/size or compressed-blobs/compressor/[function/]hash/size and
// gives the segments after the size.
func parseBlob(segments []string) (Resource, []string, error) {
	var r Resource
	rest := segments[1:]
	switch segments[0] {
	case "blobs":
	case "compressed-blobs":
		if len(rest) == 0 {
			return r, nil, fmt.Errorf("compressor is missing")
		}
		var err error
		if r.Compressor, err = parseCompressor(rest[0]); err != nil {
			return r, nil, err
		}
		rest = rest[1:]
	default:
		return r, nil, fmt.Errorf("segment %q is not blobs or compressed-blobs", segments[0])
	}
	fn, rest, err := parseFunction(rest)
	if err != nil {
		return r, nil, err
	}
	if len(rest) < 2 {
		return r, nil, fmt.Errorf("hash or size is missing")
	}
	size, err := digest.ParseSize(rest[1])
	if err != nil {
		return r, nil, err
	}
	r.Digest, err = digest.Parse(fn, rest[0], size)
	return r, rest[2:], err
}

// parseFunction takes the digest function's segment, which only functions whose hashes cannot be
// told by their length have.
func parseFunction(segments []string) (digest.Function, []string, error) {
	if len(segments) == 0 {
		return 0, nil, fmt.Errorf("hash is missing")
	}
	switch segments[0] {
	case "blake3":
		return digest.BLAKE3, segments[1:], nil
	case "sha256tree", "gitsha1":
		return 0, nil, fmt.Errorf("digest function %s: %w", segments[0], digest.ErrUnsupported)
	}
	return digest.SHA256, segments, nil
}

// ReadName is the name a client reads d's plain bytes by from an instance.
func ReadName(instance string, d digest.Digest) string {
	if instance == "" {
		return BlobName(d)
	}
	return instance + "/" + BlobName(d)
}

// BlobName is the subject of a PreconditionFailure about d: blobs/[function/]hash/size.
func BlobName(d digest.Digest) string {
	b := make([]byte, 0, len("blobs/blake3/")+digest.HexSize+20)
	b = append(b, "blobs/"...)
	if d.Function() != digest.SHA256 {
		b = append(b, d.Function().String()...)
		b = append(b, '/')
	}
	b = appendHex(b, d)
	b = append(b, '/')
	return string(strconv.AppendInt(b, d.Size(), 10))
}
