package transport

import (
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// codec is gRPC's for protobuf, but that the messages of a stream of content are copied once at either end, and not cleared
// before they are written.
type codec struct {
	encoding.CodecV2
	pool *buffer.Pool
}

func newCodec(p *buffer.Pool) codec { return codec{encoding.GetCodecV2(proto.Name), p} }

// tagData stands before the content of a google.bytestream.ReadResponse.
const tagData = 10<<3 | byte(protowire.BytesType)

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	r, is := v.(*bspb.ReadResponse)
	if !is || len(r.Data) == 0 || len(r.ProtoReflect().GetUnknown()) > 0 {
		return c.CodecV2.Marshal(v)
	}
	b := c.pool.Get(1 + protowire.SizeBytes(len(r.Data)))
	*b = protowire.AppendBytes(append((*b)[:0], tagData), r.Data)
	return mem.BufferSlice{mem.NewBuffer(b, c.pool)}, nil
}

// Unmarshal implements encoding.CodecV2. Content is read into the room that the message has, so whoever receives all of a stream
// into one message allocates once.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, is := v.(*bspb.ReadResponse)
	if !is {
		return c.CodecV2.Unmarshal(data, v)
	}
	size, head := content(data)
	if head == 0 {
		return c.CodecV2.Unmarshal(data, v)
	}
	room := r.Data
	r.Reset()
	if cap(room) < size {
		room = make([]byte, 0, size)
	}
	r.Data = room[:0]
	for _, piece := range data {
		r.Data = append(r.Data, piece.ReadOnlyData()[head:]...)
		head = 0
	}
	return nil
}

// content gives how many bytes of content a ReadResponse has that consists of nothing else, and how many bytes stand before it: 0
// when it is of another form.
func content(data mem.BufferSlice) (size, head int) {
	if len(data) == 0 {
		return 0, 0
	}
	first := data[0].ReadOnlyData()
	if len(first) == 0 || first[0] != tagData {
		return 0, 0
	}
	n, width := protowire.ConsumeVarint(first[1:])
	if width < 0 || n != uint64(data.Len()-1-width) {
		return 0, 0
	}
	return int(n), 1 + width
}
