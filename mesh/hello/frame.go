package hello

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/mesh/trust"
)

// Bounds of messages in bytes: of what a peer sends before it has proven anything, of what holds a
// charter, of what a steward tells a new member.
const (
	smallFrame   = 512
	charterFrame = trust.MaxCharter + 2*trust.MaxCertificate + 64
	contactFrame = 64 << 10
)

// errFrame means that what came is no message.
var errFrame = errors.New("malformed message")

// send writes a message.
func send(w io.Writer, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.AppendUvarint(make([]byte, 0, len(data)+3), uint64(len(data))), data...))
	return err
}

// receive reads a message of at most most bytes. It reads not a byte further.
func receive(r io.Reader, m proto.Message, most int) error {
	size, err := binary.ReadUvarint(oneByOne{r})
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	if size > uint64(most) {
		return fmt.Errorf("message of %d bytes, at most %d: %w", size, most, errFrame)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}

// oneByOne reads single bytes of an unbuffered reader.
type oneByOne struct{ io.Reader }

// ReadByte implements io.ByteReader.
func (o oneByOne) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(o, b[:])
	return b[0], err
}
