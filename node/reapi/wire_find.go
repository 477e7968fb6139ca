package reapi

import (
	"unicode/utf8"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// digestsRequest is a FindMissingBlobsRequest or a BatchReadBlobsRequest: an instance name and many
// digests, decoded straight into values. A malformed digest is no malformed message: it stands as
// the zero Digest among the others and in bad.
type digestsRequest struct {
	instance    string
	function    repb.DigestFunction_Value
	digests     []digest.Digest
	bad         []badDigest
	compressors []repb.Compressor_Value // BatchReadBlobs only
	fields      digestsFields
}

// badDigest is a digest that did not validate.
type badDigest struct {
	index int
	wire  *repb.Digest
	err   error
}

// digestsFields are the field numbers in which the two messages differ; 0 is no field.
type digestsFields struct{ digests, function, compressors protowire.Number }

var (
	findFields = digestsFields{digests: 2, function: 3}
	readFields = digestsFields{digests: 2, function: 4, compressors: 3}
)

// reset empties r for the next message, keeping its memory.
func (r *digestsRequest) reset(fields digestsFields) {
	*r = digestsRequest{digests: r.digests[:0], bad: r.bad[:0], compressors: r.compressors[:0], fields: fields}
}

func (r *digestsRequest) decode(data mem.BufferSlice, p *buffer.Pool) error {
	flat := data.MaterializeToBuffer(p)
	defer flat.Free()
	if err := r.unmarshal(flat.ReadOnlyData()); err != nil {
		return err
	}
	// The function's field comes after the digests. They were parsed as SHA256's, whose hashes
	// look the same.
	if fn, err := digest.FunctionFromProto(r.function); err == nil && fn != digest.SHA256 {
		for i, d := range r.digests {
			if !d.IsZero() {
				r.digests[i] = digest.New(fn, d.Hash(), d.Size())
			}
		}
	}
	return nil
}

func (r *digestsRequest) unmarshal(b []byte) error {
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		var err error
		switch {
		case num == r.fields.digests && typ == protowire.BytesType:
			var item []byte
			if item, n = protowire.ConsumeBytes(b); n >= 0 {
				err = r.add(item)
			}
		case num == 1 && typ == protowire.BytesType:
			var name []byte
			if name, n = protowire.ConsumeBytes(b); n >= 0 {
				r.instance, err = utf8String(name)
			}
		case num == r.fields.function && typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			r.function = repb.DigestFunction_Value(v)
		case num == r.fields.compressors && r.fields.compressors != 0:
			n, err = r.addCompressors(num, typ, b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if err != nil {
			return err
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
	}
	return nil
}

// add takes one Digest message.
func (r *digestsRequest) add(item []byte) error {
	var w wireDigest
	if err := w.merge(item); err != nil {
		return err
	}
	d, err := w.digest(digest.SHA256)
	if err != nil {
		r.bad = append(r.bad, badDigest{index: len(r.digests), wire: w.proto(), err: err})
	}
	r.digests = append(r.digests, d)
	return nil
}

// addCompressors takes a repeated enum, packed or not, and gives the bytes it took.
func (r *digestsRequest) addCompressors(num protowire.Number, typ protowire.Type, b []byte) (int, error) {
	switch typ {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		if n >= 0 {
			r.compressors = append(r.compressors, repb.Compressor_Value(v))
		}
		return n, nil
	case protowire.BytesType:
		packed, n := protowire.ConsumeBytes(b)
		for len(packed) > 0 {
			v, m := protowire.ConsumeVarint(packed)
			if m < 0 {
				return 0, errWire
			}
			r.compressors = append(r.compressors, repb.Compressor_Value(v))
			packed = packed[m:]
		}
		return n, nil
	default:
		return protowire.ConsumeFieldValue(num, typ, b), nil
	}
}

// utf8String copies b, refusing what protobuf refuses.
func utf8String(b []byte) (string, error) {
	if !utf8.Valid(b) {
		return "", errUTF8
	}
	return string(b), nil
}

// findResponse is a FindMissingBlobsResponse.
type findResponse struct{ missing []digest.Digest }

const tagMissing = 2<<3 | byte(protowire.BytesType)

func (r *findResponse) encode(p *buffer.Pool) (mem.BufferSlice, error) {
	buffer := p.Get(maxDigestField * len(r.missing))
	wire := (*buffer)[:0]
	for _, d := range r.missing {
		wire = appendDigest(wire, tagMissing, d)
	}
	*buffer = wire
	return mem.BufferSlice{mem.NewBuffer(buffer, p)}, nil
}
