package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
)

// Marks of removal in an archive (OCI image-spec, layer.md, "Whiteouts").
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// maxWindow is the largest window a zstd layer may ask for.
const maxWindow = 128 << 20

// unpack applies one layer to the root. Only when it returns nil was the archive what its digests say.
func (m *importer) unpack(ctx context.Context, layer v1.Descriptor, diff v1.Hash) error {
	packed, err := m.registry.Blob(ctx, m.reference, layer.Digest)
	if err != nil {
		return err
	}
	defer packed.Close()
	outer := newChecked(&endless{ctx: ctx, from: packed}, layer.Digest, layer.Size)
	plain, closePlain, err := decompress(outer)
	if err != nil {
		return fault(err)
	}
	defer closePlain()
	inner := newChecked(&budgeted{from: plain, left: &m.bytes}, diff, -1)
	if err := m.entries(ctx, tar.NewReader(inner)); err != nil {
		return fault(err)
	}
	// What follows the archive belongs to what the digests are made of.
	for _, rest := range []*checked{inner, outer} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return fault(err)
		}
		if err := rest.verify(); err != nil {
			return err
		}
	}
	return nil
}

// fault tells a damaged archive from every other reason why reading it failed.
func fault(err error) error {
	for _, known := range []error{ErrTooLarge, ErrCorrupt, ErrUnreachable, errStore, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// decompress looks at the first bytes: media types are often wrong about them.
func decompress(r io.Reader) (io.Reader, func(), error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	start, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case bytes.Equal(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return buffered, func() {}, nil
}

// entries reads an archive to its end.
func (m *importer) entries(ctx context.Context, archive *tar.Reader) error {
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return m.files.flush(ctx)
		}
		if err != nil {
			return err
		}
		if err := m.entry(ctx, header, archive); err != nil {
			return err
		}
	}
}

// entry applies one entry of an archive.
func (m *importer) entry(ctx context.Context, header *tar.Header, content io.Reader) error {
	parts, err := elements(header.Name)
	if err != nil || len(parts) == 0 {
		return err
	}
	base, dir := parts[len(parts)-1], parts[:len(parts)-1]
	if base == opaque {
		m.root.hide(dir)
		return nil
	}
	if gone, isMark := strings.CutPrefix(base, whiteout); isMark {
		if gone == "" || gone == "." || gone == ".." {
			return fmt.Errorf("%w: entry %q removes nothing that can be", ErrCorrupt, clip(header.Name))
		}
		m.root.remove(append(slices.Clone(dir), gone))
		return nil
	}
	n := &node{layer: m.root.layer}
	switch header.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeGNUSparse:
		n.kind, n.executable = isFile, header.Mode&0o111 != 0
		if n.digest, err = m.files.add(ctx, header.Size, content); err != nil {
			return err
		}
	case tar.TypeDir:
		n = newDir(m.root.layer)
	case tar.TypeSymlink:
		n.kind, n.target = isLink, header.Linkname
	case tar.TypeLink:
		return m.hardLink(parts, header)
	case tar.TypeXGlobalHeader:
		return nil
	default: // devices, pipes and whatever else cannot be part of an input root
		n.kind = isSkipped
	}
	return m.root.set(parts, n)
}

// hardLink makes an equal entry of one that is there.
func (m *importer) hardLink(parts []string, header *tar.Header) error {
	to, err := elements(header.Linkname)
	if err != nil {
		return err
	}
	target := m.root.find(to)
	if target == nil || target.kind == isDir {
		return fmt.Errorf("%w: hard link %q to %q, which is no file before it", ErrCorrupt, clip(header.Name), clip(header.Linkname))
	}
	n := *target
	n.layer = m.root.layer
	return m.root.set(parts, &n)
}
