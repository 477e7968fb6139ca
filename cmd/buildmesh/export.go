package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/buildmesh/buildmesh/node/archive"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// exportVerb is `buildmesh export`.
type exportVerb struct {
	What string `arg:"" help:"A Bazel target //PACKAGE:NAME, a BuildStream artifact PROJECT/ELEMENT/KEY, or a tree HASH/SIZE."`
	To   string `arg:"" help:"A new directory, a file NAME.tar, or - for a tar on standard output."`
	OCI  bool   `name:"oci" help:"Make the directory an OCI layout of one image."`
}

// Run writes what was built somewhere else.
func (e *exportVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	stream, err := client.Archive.Export(ctx, &controlv1.ExportRequest{Name: e.What})
	if err != nil {
		return plain(err)
	}
	first, err := stream.Recv()
	if err != nil {
		return plain(err)
	}
	return e.write(ctx, v, first.Root, &exported{recv: stream.Recv})
}

// write puts a tar where it is wanted, in the form it is wanted in.
func (e *exportVerb) write(ctx context.Context, v *verbContext, root string, tar io.Reader) error {
	switch {
	case e.To == "-":
		_, err := io.Copy(v.out, tar)
		return err
	case e.OCI:
		image, err := archive.Layout(ctx, tar, e.To)
		if err != nil {
			return err
		}
		path, err := filepath.Abs(e.To) // container-image takes no other
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(v.out, "%s is image oci:%s@%s\n", root, path, image)
		return err
	case strings.HasSuffix(e.To, ".tar"):
		if err := writeFile(e.To, tar); err != nil {
			return err
		}
	default:
		if err := writeFolder(ctx, e.To, tar); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(v.out, "%s is in %s\n", root, e.To)
	return err
}

// writeFile makes a new file; when it cannot be completed, there is none.
func writeFile(path string, from io.Reader) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

// writeFolder makes a new directory; when it cannot be completed, there is none.
func writeFolder(ctx context.Context, path string, tar io.Reader) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(path)
	if err == nil {
		err = archive.Unpack(ctx, tar, root)
		_ = root.Close()
	}
	if err != nil {
		_ = os.RemoveAll(path)
	}
	return err
}

// exported reads the stream of an export.
type exported struct {
	recv func() (*controlv1.ExportResponse, error)
	rest []byte
}

// Read implements io.Reader.
func (r *exported) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		part, err := r.recv()
		if err == io.EOF {
			return 0, io.EOF
		}
		if err != nil {
			return 0, plain(err)
		}
		r.rest = part.Data
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
