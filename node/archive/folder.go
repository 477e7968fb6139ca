package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/buildmesh/buildmesh/dht/tree"
)

// Unpack writes a tar below root, which nothing of it can leave, and not over what is there. Errors:
// *RefusedError for entries that Write does not make.
func Unpack(ctx context.Context, r io.Reader, root *os.Root) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("unpack tar: %w", err)
		}
		if err := unpack(t, h, root); err != nil {
			return fmt.Errorf("unpack %.300q: %w", h.Name, err)
		}
	}
}

// unpack writes one entry.
func unpack(t *tar.Reader, h *tar.Header, root *os.Root) error {
	name, err := entryPath(h.Name)
	if err != nil || name == "" {
		return err
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		return unpackFile(t, h, root, name)
	}
	return refuse(h.Name, "it is no file, symlink or directory")
}

// unpackFile writes one file, with the time that all have.
func unpackFile(t *tar.Reader, h *tar.Header, root *os.Root, name string) error {
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, t)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return root.Chtimes(name, tree.ModTime, tree.ModTime)
}

// Pack writes everything below root as a tar that Read takes, in the order of paths. Errors:
// *RefusedError for a device node, socket or pipe; those of reading.
func Pack(ctx context.Context, w io.Writer, root *os.Root) error {
	t := tar.NewWriter(w)
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		return pack(t, root, name, d)
	})
	if err == nil {
		err = t.Close()
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", root.Name(), err)
	}
	return nil
}

// pack writes one entry. Nothing follows a symlink: what is a file in the listing is opened below root.
func pack(t *tar.Writer, root *os.Root, name string, d fs.DirEntry) error {
	h := &tar.Header{Name: name, ModTime: tree.ModTime, Mode: 0o755}
	switch kind := d.Type(); {
	case kind.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return t.WriteHeader(h)
	case kind&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, strings.ReplaceAll(target, string(os.PathSeparator), "/")
		return t.WriteHeader(h)
	case !kind.IsRegular():
		return refuse(name, "it is %s, which a tree cannot hold", kindName(kind))
	}
	file, err := root.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return refuse(name, "it changed while it was read")
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if info.Mode()&0o111 == 0 {
		h.Mode = 0o644
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.Copy(t, io.LimitReader(file, h.Size)); err != nil || n != h.Size {
		return errors.Join(err, refuse(name, "it changed while it was read"))
	}
	return nil
}

// kindName is a file's type in words.
func kindName(kind fs.FileMode) string {
	switch {
	case kind&fs.ModeDevice != 0:
		return "a device node"
	case kind&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case kind&fs.ModeSocket != 0:
		return "a socket"
	}
	return "no file, symlink or directory"
}
