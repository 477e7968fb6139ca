package reapi

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// maxWindow is the largest window a zstd frame may ask for, in bytes: what RFC 8878 section 3.1.1.1.2
// recommends decoders to support. It bounds the memory of one decompression.
const maxWindow = 8 << 20

// minCompressed is the size in bytes from which an item of a batch is worth compressing.
const minCompressed = 1 << 10

// packer compresses and decompresses, reusing the state that takes. It runs in the caller's
// goroutine and owns none. Safe for concurrent use.
type packer struct {
	whole    *zstd.Decoder // of whole blobs
	encoders sync.Pool     // of *zstd.Encoder
	decoders sync.Pool     // of *zstd.Decoder
}

// newPacker makes a packer.
func newPacker() (*packer, error) {
	whole, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxWindow(maxWindow),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return &packer{whole: whole}, nil
}

// close ends the packer; nothing may be using it.
func (p *packer) close() { p.whole.Close() }

// encoder gives a zstd encoder that writes to w. It ends with put.
func (p *packer) encoder(w io.Writer) (*zstd.Encoder, error) {
	if e, ok := p.encoders.Get().(*zstd.Encoder); ok {
		e.Reset(w)
		return e, nil
	}
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithZeroFrames(true), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
}

// compress gives data as one zstd frame.
func (p *packer) compress(data []byte) ([]byte, error) {
	e, err := p.encoder(nil)
	if err != nil {
		return nil, err
	}
	defer p.encoders.Put(e)
	return e.EncodeAll(data, make([]byte, 0, len(data))), nil
}

// decompress gives the size bytes that data is compressed from; more or less is an error, and no
// more than size bytes are ever made.
func (p *packer) decompress(c Compressor, data []byte, size int64) ([]byte, error) {
	out := make([]byte, 0, size)
	var err error
	switch c {
	case Zstd:
		out, err = p.whole.DecodeAll(data, out)
	case Deflate:
		in := bytes.NewReader(data)
		r := flate.NewReader(in)
		out, err = readUpTo(r, out[:size])
		if err == nil && in.Len() > 0 {
			err = errTrailing
		}
	}
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", c, err)
	}
	if int64(len(out)) != size {
		return nil, fmt.Errorf("decompress %s: %d bytes, want %d", c, len(out), size)
	}
	return out, nil
}

// readUpTo fills out from r, which must not hold more.
func readUpTo(r io.Reader, out []byte) ([]byte, error) {
	n, err := io.ReadFull(r, out)
	if err == io.ErrUnexpectedEOF || err == io.EOF && len(out) > 0 {
		return out[:n], nil
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	if m, err := io.ReadFull(r, make([]byte, 1)); m != 0 || err != io.EOF {
		return nil, fmt.Errorf("more than %d bytes", len(out))
	}
	return out, nil
}

// expand writes to w what the compressed stream r holds.
func (p *packer) expand(c Compressor, w io.Writer, r io.Reader) error {
	if c == Deflate {
		return inflate(w, r)
	}
	d, ok := p.decoders.Get().(*zstd.Decoder)
	if !ok {
		var err error
		if d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderLowmem(true)); err != nil {
			return fmt.Errorf("make zstd decoder: %w", err)
		}
	}
	defer p.putDecoder(d)
	if err := d.Reset(r); err != nil {
		return err
	}
	_, err := d.WriteTo(w)
	return err
}

// inflate writes to w what r holds, which must end where the compressed data ends.
func inflate(w io.Writer, r io.Reader) error {
	in := bufio.NewReaderSize(r, 32<<10)
	out := struct{ io.Writer }{w} // CopyBuffer uses the buffer only when neither side copies itself
	if _, err := io.CopyBuffer(out, struct{ io.Reader }{flate.NewReader(in)}, make([]byte, 128<<10)); err != nil {
		return err
	}
	if in.Buffered() > 0 {
		return errTrailing
	}
	return nil
}

// errTrailing means that something follows the compressed data.
var errTrailing = errors.New("bytes after the end of the compressed data")

// putDecoder keeps d for the next stream, without what it was reading.
func (p *packer) putDecoder(d *zstd.Decoder) {
	if d.Reset(nil) == nil {
		p.decoders.Put(d)
	}
}

// pack gives a writer that compresses to w and must be closed.
func (p *packer) pack(c Compressor, w io.Writer) (io.WriteCloser, error) {
	if c == Deflate {
		return flate.NewWriter(w, flate.BestSpeed)
	}
	e, err := p.encoder(w)
	if err != nil {
		return nil, err
	}
	return &pooledEncoder{Encoder: e, packer: p}, nil
}

// pooledEncoder goes back to its packer when closed.
type pooledEncoder struct {
	*zstd.Encoder
	packer *packer
}

// Close ends the frame. The encoder must not be used any more.
func (e *pooledEncoder) Close() error {
	err := e.Encoder.Close()
	e.Encoder.Reset(nil)
	e.packer.encoders.Put(e.Encoder)
	e.Encoder = nil
	return err
}
