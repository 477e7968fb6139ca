package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// checked compares what was read through it with a digest, and with a size unless that is negative.
type checked struct {
	from io.Reader
	sum  hash.Hash
	want v1.Hash
	size int64
	read int64
}

func newChecked(from io.Reader, want v1.Hash, size int64) *checked {
	return &checked{from: from, sum: sha256.New(), want: want, size: size}
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.sum.Write(p[:n])
	if c.read += int64(n); c.size >= 0 && c.read > c.size {
		return 0, fmt.Errorf("%w: %s has more than the %d bytes it should", ErrCorrupt, c.want, c.size)
	}
	return n, err
}

// verify is asked when everything was read.
func (c *checked) verify() error {
	if c.size >= 0 && c.read != c.size {
		return fmt.Errorf("%w: %s has %d bytes and should have %d", ErrCorrupt, c.want, c.read, c.size)
	}
	if got := hex.EncodeToString(c.sum.Sum(nil)); c.want.Algorithm != "sha256" || got != c.want.Hex {
		return fmt.Errorf("%w: content of %s is sha256:%s", ErrCorrupt, c.want, got)
	}
	return nil
}

// budgeted ends a stream when the bytes of all layers together are used up.
type budgeted struct {
	from io.Reader
	left *int64
}

func (b *budgeted) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if *b.left -= int64(n); *b.left < 0 {
		return 0, fmt.Errorf("%w: unpacked it exceeds the bound", ErrTooLarge)
	}
	return n, err
}

// endless says of a stream that broke why: the time is up, or whoever sends it failed.
type endless struct {
	ctx  context.Context
	from io.Reader
}

func (e *endless) Read(p []byte) (int, error) {
	if e.ctx.Err() != nil {
		return 0, context.Cause(e.ctx)
	}
	n, err := e.from.Read(p)
	if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return n, err
	}
	if e.ctx.Err() != nil {
		return n, context.Cause(e.ctx)
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForbidden) {
		return n, err
	}
	return n, fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// small reads a manifest or configuration, at most so many bytes, and checks it.
func small(r io.Reader, want v1.Hash, most int64) ([]byte, error) {
	c := newChecked(r, want, -1)
	data, err := io.ReadAll(io.LimitReader(c, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrTooLarge, want, most)
	}
	return data, c.verify()
}
