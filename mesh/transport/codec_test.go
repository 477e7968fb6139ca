package transport

import (
	"bytes"
	"testing"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// split gives bytes in buffers of a size.
func split(b []byte, size int) mem.BufferSlice {
	var s mem.BufferSlice
	for ; len(b) > size; b = b[size:] {
		s = append(s, mem.SliceBuffer(b[:size]))
	}
	return append(s, mem.SliceBuffer(b))
}

// FuzzCodec reads and writes the messages of a stream, however they were cut, as protobuf does.
func FuzzCodec(f *testing.F) {
	long, err := proto.Marshal(&bspb.ReadResponse{Data: make([]byte, 1000)})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{nil, {tagData}, {tagData, 0}, {tagData, 0x80}, {tagData, 2, 1}, {tagData, 1, 1}, {tagData, 1, 1, tagData, 1, 2}, {8, 1, tagData, 1, 7}, {tagData, 1, 7, 8, 1}, long} {
		f.Add(seed, uint8(1))
		f.Add(seed, uint8(100))
	}
	f.Fuzz(func(t *testing.T, wire []byte, cut uint8) {
		c := newCodec(&buffer.Pool{})
		var want bspb.ReadResponse
		wrong := proto.Unmarshal(wire, protoadapt.MessageV2Of(&want))
		got := bspb.ReadResponse{Data: []byte("the message before")}
		if err := c.Unmarshal(split(wire, 1+int(cut)), &got); (err == nil) != (wrong == nil) {
			t.Fatalf("%x: %v, want %v", wire, err, wrong)
		}
		if wrong != nil {
			return
		}
		if !proto.Equal(&got, &want) {
			t.Errorf("%x was read as %v, want %v", wire, &got, &want)
		}
		written, err := c.Marshal(&got)
		if err != nil {
			t.Fatal(err)
		}
		defer written.Free()
		if again, err := proto.Marshal(&want); err != nil || !bytes.Equal(written.Materialize(), again) {
			t.Errorf("%v was written as %x, want %x, %v", &got, written.Materialize(), again, err)
		}
	})
}

// Messages that are received into one share its room.
func TestReceivedIntoOne(t *testing.T) {
	c := newCodec(&buffer.Pool{})
	wires := make([]mem.BufferSlice, 2)
	for i, size := range []int{3000, 2000} {
		wire, err := proto.Marshal(&bspb.ReadResponse{Data: bytes.Repeat([]byte{byte(i + 1)}, size)})
		if err != nil {
			t.Fatal(err)
		}
		wires[i] = split(wire, 1024)
	}
	var part bspb.ReadResponse
	allocations := testing.AllocsPerRun(10, func() {
		for i, wire := range wires {
			if err := c.Unmarshal(wire, &part); err != nil || len(part.Data) != 3000-1000*i || part.Data[0] != byte(i+1) {
				t.Errorf("message %d has %d bytes, %v", i, len(part.Data), err)
			}
		}
	})
	if allocations > 0 {
		t.Errorf("two messages took %v allocations", allocations)
	}
}
