package reapi

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// decoder is a request that reads its wire format itself. It must accept, refuse and mean what the
// generated message of the same name does.
type decoder interface {
	// decode reads one message. data is freed after the call; what is kept needs its own reference.
	decode(data mem.BufferSlice, p *buffer.Pool) error
}

// encoder is a response that writes its wire format itself.
type encoder interface {
	// encode gives the wire format; each buffer carries one reference, which gRPC frees.
	encode(p *buffer.Pool) (mem.BufferSlice, error)
}

// codec is the protobuf codec of the whole server. Messages on hot paths bring their own coding,
// which avoids a string per hash and a copy per byte; all others are generated ones.
type codec struct{ pool *buffer.Pool }

var _ encoding.CodecV2 = (*codec)(nil)

// Name is protobuf's: on the wire nothing is different.
func (c *codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (c *codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(encoder); ok {
		return e.encode(c.pool)
	}
	m, err := message(v)
	if err != nil {
		return nil, err
	}
	size := proto.Size(m)
	if mem.IsBelowBufferPoolingThreshold(size) {
		wire, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(make([]byte, 0, size), m)
		return mem.BufferSlice{mem.SliceBuffer(wire)}, err
	}
	buffer := c.pool.Get(size)
	wire, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buffer)[:0], m)
	if err != nil {
		c.pool.Put(buffer)
		return nil, err
	}
	*buffer = wire
	return mem.BufferSlice{mem.NewBuffer(buffer, c.pool)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (c *codec) Unmarshal(data mem.BufferSlice, v any) error {
	if d, ok := v.(decoder); ok {
		return d.decode(data, c.pool)
	}
	m, err := message(v)
	if err != nil {
		return err
	}
	flat := data.MaterializeToBuffer(c.pool)
	defer flat.Free()
	return proto.Unmarshal(flat.ReadOnlyData(), m)
}

// message gives v as a protobuf message of either API version.
func message(v any) (proto.Message, error) {
	switch v := v.(type) {
	case proto.Message:
		return v, nil
	case protoadapt.MessageV1:
		return protoadapt.MessageV2Of(v), nil
	}
	return nil, fmt.Errorf("%T is not a protobuf message", v)
}
