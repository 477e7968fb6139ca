package asset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// A record's value, big-endian:
//
//	0   version   1 byte, 1
//	1   kind      1 byte
//	2   function  1 byte
//	3   pushed    8 bytes, nanoseconds since 1970
//	11  asset     the rest: a PushBlobRequest, for a directory as well
const (
	version  = 1
	headSize = 11
)

// errUnreadable is a record that is damaged or of a future version.
var errUnreadable = errors.New("asset record is unreadable")

// encode makes a record's value. Errors: ErrInvalid.
func encode(a *Asset) ([]byte, error) {
	m := &rapb.PushBlobRequest{
		Uris: a.URIs, BlobDigest: a.Digest.Proto(),
		ReferencesBlobs: digest.Protos(a.Blobs), ReferencesDirectories: digest.Protos(a.Directories),
	}
	for _, q := range a.Qualifiers {
		m.Qualifiers = append(m.Qualifiers, &rapb.Qualifier{Name: q.Name, Value: q.Value})
	}
	if !a.Expires.IsZero() {
		m.ExpireAt = timestamppb.New(a.Expires)
	}
	b := []byte{version, byte(a.Kind), byte(a.Digest.Function())}
	b = binary.BigEndian.AppendUint64(b, uint64(a.Pushed.UnixNano()))
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(b) > maxEncoded {
		return nil, fmt.Errorf("it takes %d bytes to remember, at most %d are allowed: %w", len(b), maxEncoded, ErrInvalid)
	}
	return b, nil
}

// decode reads a record's value. Errors: errUnreadable.
func decode(value []byte) (*Asset, error) {
	if len(value) < headSize || value[0] != version {
		return nil, errUnreadable
	}
	fn := digest.Function(value[2])
	if fn != digest.SHA256 && fn != digest.BLAKE3 {
		return nil, errUnreadable
	}
	var m rapb.PushBlobRequest
	if err := proto.Unmarshal(value[headSize:], &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	a := &Asset{
		Kind: Kind(value[1]), URIs: m.Uris,
		Pushed: time.Unix(0, int64(binary.BigEndian.Uint64(value[3:]))),
	}
	for _, q := range m.Qualifiers {
		a.Qualifiers = append(a.Qualifiers, Qualifier{q.GetName(), q.GetValue()})
	}
	if m.ExpireAt != nil {
		a.Expires = m.ExpireAt.AsTime()
	}
	var err error
	if a.Digest, err = digest.FromProto(fn, m.BlobDigest); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if a.Blobs, err = digests(fn, m.ReferencesBlobs); err != nil {
		return nil, err
	}
	if a.Directories, err = digests(fn, m.ReferencesDirectories); err != nil {
		return nil, err
	}
	if err := a.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return a, nil
}

func digests(fn digest.Function, ps []*repb.Digest) ([]digest.Digest, error) {
	var ds []digest.Digest
	for _, p := range ps {
		d, err := digest.FromProto(fn, p)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		ds = append(ds, d)
	}
	return ds, nil
}
