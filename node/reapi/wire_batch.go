package reapi

import (
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// updateRequest is a BatchUpdateBlobsRequest whose items share the received bytes. It holds them
// until release.
type updateRequest struct {
	instance string
	function repb.DigestFunction_Value
	items    []updateItem
	held     mem.Buffer
}

// updateItem is a BatchUpdateBlobsRequest.Request.
type updateItem struct {
	digest     wireDigest
	data       []byte
	compressor repb.Compressor_Value
}

// release gives the received bytes back; the items must not be used any more.
func (r *updateRequest) release() {
	if r.held != nil {
		r.held.Free()
	}
	clear(r.items)
	*r = updateRequest{items: r.items[:0]}
}

func (r *updateRequest) decode(data mem.BufferSlice, p *buffer.Pool) error {
	r.release()
	r.held = data.MaterializeToBuffer(p)
	b := r.held.ReadOnlyData()
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		var err error
		switch {
		case num == 2 && typ == protowire.BytesType:
			var item []byte
			if item, n = protowire.ConsumeBytes(b); n >= 0 {
				r.items = append(r.items, updateItem{})
				err = r.items[len(r.items)-1].unmarshal(item)
			}
		case num == 1 && typ == protowire.BytesType:
			var name []byte
			if name, n = protowire.ConsumeBytes(b); n >= 0 {
				r.instance, err = utf8String(name)
			}
		case num == 5 && typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			r.function = repb.DigestFunction_Value(v)
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

func (i *updateItem) unmarshal(b []byte) error {
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		switch {
		case num == 1 && typ == protowire.BytesType:
			var d []byte
			if d, n = protowire.ConsumeBytes(b); n >= 0 {
				if err := i.digest.merge(d); err != nil {
					return err
				}
			}
		case num == 2 && typ == protowire.BytesType:
			i.data, n = protowire.ConsumeBytes(b)
		case num == 3 && typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			i.compressor = repb.Compressor_Value(v)
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

// batchItem is a Response of BatchUpdateBlobsResponse or BatchReadBlobsResponse.
type batchItem struct {
	digest     digest.Digest
	raw        *repb.Digest // instead of digest, for a request's item that did not validate
	data       []byte       // shared, never written to
	compressor Compressor
	status     *spb.Status // nil is OK
}

// batchResponse is a BatchUpdateBlobsResponse or a BatchReadBlobsResponse: the former has no data
// and another field for the status.
type batchResponse struct {
	items     []batchItem
	tagStatus byte
}

const (
	tagBatchItem       = 1<<3 | byte(protowire.BytesType)
	tagItemDigest      = 1<<3 | byte(protowire.BytesType)
	tagItemData        = 2<<3 | byte(protowire.BytesType)
	tagUpdateStatus    = 2<<3 | byte(protowire.BytesType)
	tagReadStatus      = 3<<3 | byte(protowire.BytesType)
	tagReadCompressor  = 4<<3 | byte(protowire.VarintType)
	maxItemOverhead    = 1 + 4 + maxDigestField + 5 + 2 + 2 // without raw digest and status
	copyThreshold      = 16 << 10                           // larger blobs are sent from where they are
	initialItemsBuffer = 64 << 10
)

// size is the length of the item's encoding without tag and length, and of its status and raw digest.
func (i *batchItem) size(status, raw []byte) int {
	n := 1 + protowire.SizeBytes(len(status))
	if i.raw != nil {
		n += 1 + protowire.SizeBytes(len(raw))
	} else {
		n += 2 + digestLen(i.digest)
	}
	if len(i.data) > 0 {
		n += 1 + protowire.SizeBytes(len(i.data))
	}
	if i.compressor != Identity {
		n += 2
	}
	return n
}

func (r *batchResponse) encode(p *buffer.Pool) (mem.BufferSlice, error) {
	out := &spool{pool: p}
	for i := range r.items {
		item := &r.items[i]
		status, err := proto.Marshal(item.status)
		if err != nil {
			return nil, err
		}
		raw, err := proto.Marshal(item.raw)
		if err != nil {
			return nil, err
		}
		wire := out.room(maxItemOverhead + len(status) + len(raw))
		wire = protowire.AppendVarint(append(wire, tagBatchItem), uint64(item.size(status, raw)))
		if item.raw != nil {
			wire = protowire.AppendBytes(append(wire, tagItemDigest), raw)
		} else {
			wire = appendDigest(wire, tagItemDigest, item.digest)
		}
		if len(item.data) > 0 {
			wire = protowire.AppendVarint(append(wire, tagItemData), uint64(len(item.data)))
			out.keep(wire)
			out.add(item.data)
			wire = out.room(maxItemOverhead + len(status))
		}
		// An empty status is sent too: clients read its code without looking whether it is there.
		wire = protowire.AppendBytes(append(wire, r.tagStatus), status)
		if item.compressor != Identity {
			wire = append(wire, tagReadCompressor, byte(item.compressor.Proto()))
		}
		out.keep(wire)
	}
	return out.finish(), nil
}

// spool gathers an encoding in pooled buffers, with large pieces in between that are not copied.
type spool struct {
	pool    *buffer.Pool
	done    mem.BufferSlice
	current *[]byte
}

// room gives the current buffer's content with space for at least n more bytes behind it. What is
// appended counts after keep.
func (s *spool) room(n int) []byte {
	if s.current != nil && cap(*s.current)-len(*s.current) < n {
		s.flush()
	}
	if s.current == nil {
		s.current = s.pool.Get(max(n, initialItemsBuffer))
		*s.current = (*s.current)[:0]
	}
	return *s.current
}

// keep takes what was appended to the slice that room gave.
func (s *spool) keep(b []byte) { *s.current = b }

// add appends data, copying only when it is small.
func (s *spool) add(data []byte) {
	if len(data) < copyThreshold {
		s.keep(append(s.room(len(data)), data...))
		return
	}
	s.flush()
	s.done = append(s.done, mem.SliceBuffer(data))
}

// flush closes the current buffer.
func (s *spool) flush() {
	if s.current == nil {
		return
	}
	s.done = append(s.done, mem.NewBuffer(s.current, s.pool))
	s.current = nil
}

// finish gives everything; the spool is empty then.
func (s *spool) finish() mem.BufferSlice {
	s.flush()
	done := s.done
	s.done = nil
	return done
}
