package cas

import (
	"io"
	"sync/atomic"
)

// Source is the content behind a Reader. ReadAt may be called from several goroutines at once.
type Source interface {
	io.ReaderAt
	io.Closer
}

// Reader reads one blob, which is present until Close. Safe for concurrent use.
type Reader struct {
	source Source
	size   int64
	closed atomic.Bool
}

// NewReader makes a Reader of size bytes from source. It is for implementers of the store's methods.
func NewReader(source Source, size int64) *Reader { return &Reader{source: source, size: size} }

// ReadAt implements io.ReaderAt: io.EOF at and past the end. A small blob's content was verified
// when the reader was opened; a large one is as verified when it was written, unless its disk changed it.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if r.closed.Load() {
		return 0, ErrClosed
	}
	return r.source.ReadAt(p, off)
}

// Size is the blob's length in bytes.
func (r *Reader) Size() int64 { return r.size }

// Close lets the blob go; calls after the first do nothing. No ReadAt may be running.
func (r *Reader) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	return r.source.Close()
}
