package reapi

import (
	"io"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// writeRequest is a google.bytestream.WriteRequest whose data stays in the buffers it was received
// in. It holds them until the next decode or release.
type writeRequest struct {
	name   string
	offset int64
	finish bool
	data   [][]byte // the data in pieces, none of them empty
	held   mem.BufferSlice
}

// size is the length of the data in bytes.
func (r *writeRequest) size() int64 {
	var n int64
	for _, piece := range r.data {
		n += int64(len(piece))
	}
	return n
}

// release gives the received buffers back; the data must not be used any more.
func (r *writeRequest) release() {
	r.held.Free()
	clear(r.held)
	clear(r.data)
	*r = writeRequest{held: r.held[:0], data: r.data[:0]}
}

func (r *writeRequest) decode(data mem.BufferSlice, _ *buffer.Pool) error {
	r.release()
	data.Ref()
	r.held = append(r.held, data...)
	c := cursor{bufs: r.held}
	for {
		tag, err := c.varint()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		num, typ := protowire.DecodeTag(tag)
		if !num.IsValid() {
			return errWire
		}
		if err := r.field(&c, num, typ); err != nil {
			return err
		}
	}
}

// field reads one field's value.
func (r *writeRequest) field(c *cursor, num protowire.Number, typ protowire.Type) error {
	switch {
	case num == 10 && typ == protowire.BytesType:
		n, err := c.length()
		if err != nil {
			return err
		}
		r.data = c.take(r.data[:0], n)
	case num == 1 && typ == protowire.BytesType:
		n, err := c.length()
		if err != nil {
			return err
		}
		if r.name, err = utf8String(c.copy(n)); err != nil {
			return err
		}
	case num == 2 && typ == protowire.VarintType:
		v, err := c.need()
		if err != nil {
			return err
		}
		r.offset = int64(v)
	case num == 3 && typ == protowire.VarintType:
		v, err := c.need()
		if err != nil {
			return err
		}
		r.finish = protowire.DecodeBool(v)
	default:
		return c.skip(num, typ)
	}
	return nil
}

// cursor reads a message that lies in several buffers.
type cursor struct {
	bufs []mem.Buffer
	head []byte // what is left of the buffer before bufs
}

// fill makes head non-empty; it reports false at the end.
func (c *cursor) fill() bool {
	for len(c.head) == 0 {
		if len(c.bufs) == 0 {
			return false
		}
		c.head, c.bufs = c.bufs[0].ReadOnlyData(), c.bufs[1:]
	}
	return true
}

// left is the number of bytes that follow.
func (c *cursor) left() int {
	n := len(c.head)
	for _, b := range c.bufs {
		n += b.Len()
	}
	return n
}

// varint reads a number. Errors: io.EOF when nothing is left, errWire.
func (c *cursor) varint() (uint64, error) {
	if !c.fill() {
		return 0, io.EOF
	}
	if v, n := protowire.ConsumeVarint(c.head); n > 0 {
		c.head = c.head[n:]
		return v, nil
	}
	// Malformed, or across two buffers: gather it byte by byte.
	var gathered []byte
	for len(gathered) < 10 && c.fill() {
		b := c.head[0]
		gathered, c.head = append(gathered, b), c.head[1:]
		if b < 0x80 {
			break
		}
	}
	v, n := protowire.ConsumeVarint(gathered)
	if n != len(gathered) {
		return 0, errWire
	}
	return v, nil
}

// need reads a number that must be there.
func (c *cursor) need() (uint64, error) {
	v, err := c.varint()
	if err != nil {
		return 0, errWire
	}
	return v, nil
}

// length reads the length of a field that must be there wholly.
func (c *cursor) length() (int, error) {
	v, err := c.need()
	if err != nil || v > uint64(c.left()) {
		return 0, errWire
	}
	return int(v), nil
}

// take appends the next n bytes in pieces to out; n is at most left.
func (c *cursor) take(out [][]byte, n int) [][]byte {
	for n > 0 && c.fill() {
		m := min(n, len(c.head))
		out = append(out, c.head[:m])
		c.head = c.head[m:]
		n -= m
	}
	return out
}

// copy gives a copy of the next n bytes; n is at most left.
func (c *cursor) copy(n int) []byte {
	b := make([]byte, 0, n)
	for _, piece := range c.take(nil, n) {
		b = append(b, piece...)
	}
	return b
}

// skip passes over an unknown field's value.
func (c *cursor) skip(num protowire.Number, typ protowire.Type) error {
	// Rare: no client sends unknown fields, so the rest of the message is simply gathered.
	rest := c.copy(c.left())
	n := protowire.ConsumeFieldValue(num, typ, rest)
	if n < 0 {
		return errWire
	}
	c.head = rest[n:]
	return nil
}

// readResponse is a google.bytestream.ReadResponse; encoding hands its buffer over.
type readResponse struct{ data mem.Buffer }

const tagReadData = 10<<3 | byte(protowire.BytesType)

func (r *readResponse) encode(*buffer.Pool) (mem.BufferSlice, error) {
	head := protowire.AppendVarint(append(make([]byte, 0, 6), tagReadData), uint64(r.data.Len()))
	return mem.BufferSlice{mem.SliceBuffer(head), r.data}, nil
}
