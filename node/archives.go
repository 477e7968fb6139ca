package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/node/archive"
	"github.com/buildmesh/buildmesh/node/bridge"
	"github.com/buildmesh/buildmesh/node/reapi"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// archiveChunk is how much of a tar goes into one message, in bytes.
const archiveChunk = 256 << 10

// archiveAnswers is the node as the command line exports from and imports into it.
type archiveAnswers struct {
	controlv1.UnimplementedArchiveServer
	node *Node
}

// Export implements controlv1.ArchiveServer.
func (a archiveAnswers) Export(q *controlv1.ExportRequest, to grpc.ServerStreamingServer[controlv1.ExportResponse]) error {
	root, err := a.node.bridge.Find(to.Context(), q.Name)
	if err != nil {
		return archiveError(err)
	}
	if err := to.Send(&controlv1.ExportResponse{Root: root.String()}); err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(exportWriter{to}, archiveChunk)
	if err := archive.Write(to.Context(), buffered, a.node.store, root); err != nil {
		return archiveError(err)
	}
	return buffered.Flush()
}

// exportWriter sends what is written.
type exportWriter struct {
	to grpc.ServerStreamingServer[controlv1.ExportResponse]
}

// Write implements io.Writer.
func (w exportWriter) Write(b []byte) (int, error) {
	if err := w.to.Send(&controlv1.ExportResponse{Data: b}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Import implements controlv1.ArchiveServer.
func (a archiveAnswers) Import(from grpc.ClientStreamingServer[controlv1.ImportRequest, controlv1.ImportResponse]) error {
	first, err := from.Recv()
	if err != nil {
		return err
	}
	dir := filepath.Join(a.node.config.Dir.Cache, "assets", "imports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	root, err := archive.Read(from.Context(), &importReader{from: from, rest: first.Data}, a.node.unnamed(),
		archive.ReadOptions{Function: digest.SHA256, Dir: dir, Limits: archive.Limits{MaxBytes: a.node.store.Stat().MaxBytes / 2}})
	if err == nil {
		err = a.node.bridge.Adopt(from.Context(), first.Name, root)
	}
	if err != nil {
		return archiveError(err)
	}
	return from.SendAndClose(&controlv1.ImportResponse{Root: root.String()})
}

// importReader reads what is sent.
type importReader struct {
	from grpc.ClientStreamingServer[controlv1.ImportRequest, controlv1.ImportResponse]
	rest []byte
}

// Read implements io.Reader.
func (r *importReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		q, err := r.from.Recv()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, fmt.Errorf("receive tar: %w", err)
		}
		r.rest = q.Data
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// archiveError makes a status that names what is wrong with what was asked for or sent.
func archiveError(err error) error {
	var refused *archive.RefusedError
	var missing *tree.MissingError
	switch {
	case errors.As(err, &refused):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, bridge.ErrNotFound), errors.As(err, &missing):
		return status.Error(codes.NotFound, strings.TrimSuffix(err.Error(), ": "+bridge.ErrNotFound.Error())) // what comes before says it better
	}
	return reapi.Status(err)
}
