package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

// narrow is a connection that takes so many bytes and then fails.
type narrow struct {
	net.Conn
	left   int
	took   bytes.Buffer
	widest int // of one Write
}

func (n *narrow) Write(p []byte) (int, error) {
	n.widest = max(n.widest, len(p))
	fits := min(len(p), n.left)
	n.left -= fits
	n.took.Write(p[:fits])
	if fits < len(p) {
		return fits, io.ErrShortWrite
	}
	return fits, nil
}

// TestBursts writes more and less than a burst, and to a connection that breaks in the middle.
func TestBursts(t *testing.T) {
	data := make([]byte, 3*burst+7)
	for i := range data {
		data[i] = byte(i / 1000)
	}
	for _, test := range []struct{ size, room, want int }{
		{0, 1, 0}, {1, 1, 1}, {burst, burst, burst}, {len(data), len(data), len(data)}, {len(data), burst + 5, burst},
	} {
		conn := &narrow{left: test.room}
		records := gather(conn)
		n, err := (&tracked{Conn: records, records: records}).Write(data[:test.size])
		if n != test.want || errors.Is(err, io.ErrShortWrite) != (test.room < test.size) {
			t.Errorf("%d bytes into %d: %d, %v", test.size, test.room, n, err)
		}
		if conn.widest > burst || !bytes.Equal(conn.took.Bytes(), data[:min(test.size, test.room)]) {
			t.Errorf("%d bytes into %d: %d at once, %d in all", test.size, test.room, conn.widest, conn.took.Len())
		}
	}
}
