package reapi

import (
	"errors"
	"io"

	"google.golang.org/grpc"
)

// messages is the stream of one Write call: it checks the order of its messages and gives their data
// in pieces or, for a decompressor, as an io.Reader that ends at finish_write.
type messages struct {
	stream  grpc.ServerStream
	present func() bool // reports that the blob is there already; nil before that matters

	name    string
	message writeRequest
	pieces  [][]byte // of message, not yet read
	next    int64    // offset the next message must have
	err     error    // why no more messages come; io.EOF after finish_write
}

// first receives the message that has the name.
func (m *messages) first() error {
	if err := m.stream.RecvMsg(&m.message); errors.Is(err, io.EOF) {
		return invalid("resource_name", "stream has no messages")
	} else if err != nil {
		return &streamError{err}
	}
	m.name, m.next = m.message.name, m.message.offset
	if m.next < 0 {
		return invalid("write_offset", "%d is negative", m.next)
	}
	m.open()
	return nil
}

// open makes the received message's data readable.
func (m *messages) open() {
	m.pieces = m.message.data
	m.next += m.message.size()
}

// advance receives the next message. Errors, which repeat: io.EOF after finish_write, errPresent,
// errUnfinished, *streamError, *FieldError.
func (m *messages) advance() error {
	if m.err == nil {
		m.err = m.receive()
	}
	return m.err
}

func (m *messages) receive() error {
	if m.message.finish {
		return io.EOF
	}
	if m.present() {
		return errPresent
	}
	if err := m.stream.RecvMsg(&m.message); errors.Is(err, io.EOF) {
		return errUnfinished
	} else if err != nil {
		return &streamError{err}
	}
	if m.message.name != "" && m.message.name != m.name {
		return invalid("resource_name", "changed to %q within a stream", m.message.name)
	}
	if m.message.offset != m.next {
		return invalid("write_offset", "%d, want %d", m.message.offset, m.next)
	}
	m.open()
	return nil
}

// Read implements io.Reader over the data of all messages.
func (m *messages) Read(p []byte) (int, error) {
	for len(m.pieces) == 0 {
		if err := m.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(p, m.pieces[0])
	if m.pieces[0] = m.pieces[0][n:]; len(m.pieces[0]) == 0 {
		m.pieces = m.pieces[1:]
	}
	return n, nil
}

// copyTo writes the data of all messages to w.
func (m *messages) copyTo(w io.Writer) error {
	for {
		for _, piece := range m.pieces {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		m.pieces = nil
		if err := m.advance(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// drain receives what follows after all content was taken, which must be nothing but finish_write.
func (m *messages) drain() error {
	for {
		if len(m.pieces) > 0 {
			return invalid("data", "bytes after the end of the compressed data")
		}
		if err := m.advance(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// end waits for the client to close the stream after finish_write, when it must send nothing more.
func (m *messages) end() error {
	err := m.stream.RecvMsg(&m.message)
	switch {
	case err == nil:
		return invalid("finish_write", "a message follows")
	case errors.Is(err, io.EOF):
		return nil
	}
	return &streamError{err}
}
