package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/buildmesh/buildmesh/node/archive"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/grpc"
)

// importVerb is `buildmesh import`.
type importVerb struct {
	From string `arg:"" help:"A directory, an OCI layout, a tar file, or - for a tar on standard input."`
	As   string `placeholder:"NAME" help:"Keep it as the Bazel target //PACKAGE:NAME, or as the BuildStream artifact PROJECT/ELEMENT/KEY."`
}

// importChunk is how much of a tar goes into one message, in bytes.
const importChunk = 256 << 10

// Run brings a tree into the running node.
func (i *importVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	stream, err := client.Archive.Import(ctx)
	if err != nil {
		return plain(err)
	}
	if err := stream.Send(&controlv1.ImportRequest{Name: i.As}); err != nil {
		return i.refused(stream, err)
	}
	out := bufio.NewWriterSize(importWriter{stream}, importChunk)
	err = i.read(ctx, out)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return i.refused(stream, err)
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return plain(err)
	}
	name := i.As
	if name == "" {
		name = answer.Root
	}
	_, err = fmt.Fprintf(v.out, "%s is %s\n", i.From, answer.Root)
	if err == nil {
		_, err = fmt.Fprintf(v.out, "get it back with: buildmesh export %s DIRECTORY\n", name)
	}
	return err
}

// refused gives the node's reason when it was the node that broke the stream off, and err otherwise.
func (i *importVerb) refused(stream grpc.ClientStreamingClient[controlv1.ImportRequest, controlv1.ImportResponse], err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	_, reason := stream.CloseAndRecv()
	return plain(reason)
}

// read writes what is to be imported as a tar.
func (i *importVerb) read(ctx context.Context, w io.Writer) error {
	if i.From == "-" {
		_, err := io.Copy(w, os.Stdin)
		return err
	}
	info, err := os.Stat(i.From)
	switch {
	case err != nil:
		return err
	case archive.IsLayout(i.From):
		return archive.Flatten(ctx, w, i.From)
	case info.IsDir():
		root, err := os.OpenRoot(i.From)
		if err != nil {
			return err
		}
		defer root.Close()
		return archive.Pack(ctx, w, root)
	}
	file, err := os.Open(i.From)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(w, file)
	return err
}

// importWriter sends what is written. A stream that the node has broken off gives io.EOF.
type importWriter struct {
	to grpc.ClientStreamingClient[controlv1.ImportRequest, controlv1.ImportResponse]
}

// Write implements io.Writer.
func (w importWriter) Write(b []byte) (int, error) {
	if err := w.to.Send(&controlv1.ImportRequest{Data: b}); err != nil {
		return 0, err
	}
	return len(b), nil
}
