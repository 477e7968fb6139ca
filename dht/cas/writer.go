package cas

import (
	"fmt"
	"io"
	"sync"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// parallelHash is the size in bytes from which a write hashes beside writing: below it the
// handover costs more than it gains.
const parallelHash = 32 << 10

// Sink takes the bytes of one blob. Exactly one of Commit and Abort ends it, and Commit is called
// only after all bytes were written and verified.
type Sink interface {
	io.Writer
	Commit() error
	Abort()
}

// Writer takes one blob in order, verifying hash and size in the same pass. The blob is visible
// only after Commit. Every Writer must end with Commit or Abort; Abort after Commit does nothing.
// A Writer is not safe for concurrent use.
type Writer struct {
	sink   Sink
	want   digest.Digest
	hasher *digest.Hasher
	offset int64
	then   func() // may be nil
	err    error  // sticky: what every later call returns
}

// NewWriter makes a Writer that verifies for want and hands the bytes to sink. It is for
// implementers of the store's methods.
func NewWriter(want digest.Digest, sink Sink) *Writer {
	return &Writer{sink: sink, want: want, hasher: want.Function().NewHasher()}
}

// Then has f called by Commit, once the blob is present.
func (w *Writer) Then(f func()) { w.then = f }

// Offset is the number of bytes taken so far.
func (w *Writer) Offset() int64 { return w.offset }

// Write adds p. Errors: ErrCorrupt when there are more bytes than the digest says, ErrFull,
// ErrClosed after the end. After an error only Abort is of use.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.want.Size()-w.offset {
		w.fail(fmt.Errorf("write blob %s: more than its size: %w", w.want.Short(), ErrCorrupt))
		return 0, w.err
	}
	if err := w.write(p); err != nil {
		w.fail(fmt.Errorf("write blob %s: %w", w.want.Short(), err))
		return 0, w.err
	}
	w.offset += int64(len(p))
	return len(p), nil
}

// write hashes p while the sink writes it; p is not kept.
func (w *Writer) write(p []byte) error {
	if len(p) < parallelHash {
		w.hasher.Write(p)
		_, err := w.sink.Write(p)
		return err
	}
	var hashed sync.WaitGroup
	hashed.Go(func() { w.hasher.Write(p) })
	_, err := w.sink.Write(p)
	hashed.Wait()
	return err
}

// Commit verifies the whole and makes the blob present. Errors: ErrCorrupt when hash or size do not
// match, ErrFull, ErrClosed. After an error nothing of the blob is left.
func (w *Writer) Commit() error {
	if w.err != nil {
		return w.err
	}
	if got := w.hasher.Digest(); got != w.want {
		w.fail(fmt.Errorf("commit blob %s: got %s: %w", w.want.Short(), got.Short(), ErrCorrupt))
		return w.err
	}
	if err := w.sink.Commit(); err != nil {
		w.err = fmt.Errorf("commit blob %s: %w", w.want.Short(), err)
		return w.err
	}
	w.err = ErrClosed
	if w.then != nil {
		w.then()
	}
	return nil
}

// Abort ends the writer and leaves nothing of the blob. After Commit it does nothing.
func (w *Writer) Abort() {
	if w.err == nil {
		w.fail(ErrClosed)
	}
}

// fail ends the sink and keeps the reason.
func (w *Writer) fail(err error) {
	w.sink.Abort()
	w.err = err
}
