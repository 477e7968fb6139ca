package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// errEnough ends a tree that is better fetched level by level: much of it is here, or it is no tree.
var errEnough = errors.New("the rest goes level by level")

// FetchTree brings the directories of a tree here whose root is not, in one call to the best of the hints, and tells how
// many bytes came. It is a shortcut: what it did not bring, for whatever reason, is left to be fetched level by level.
// Errors: what the store failed with, or the context's.
func (f *Fetcher) FetchTree(ctx context.Context, root digest.Digest, hints []peer.ID) (int64, error) {
	absent, err := f.options.Store.Missing(ctx, []digest.Digest{root})
	hints = f.standing.order(hints)
	if err != nil || len(absent) == 0 || len(hints) == 0 {
		return 0, err
	}
	own, _, flights := f.claim(absent)
	if len(own) == 0 { // somebody fetches it now: what comes of that is what came of this
		select {
		case <-flights[0].done:
			return 0, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	defer f.release(own)
	call, cancel := context.WithTimeout(ctx, GiveUp)
	defer cancel()
	w := &walk{fetcher: f, patience: StallAfter, limits: tree.DefaultLimits(), expected: map[digest.Digest]bool{root: true}, left: root.Size()}
	if len(hints) == 1 {
		w.patience = GiveUp
	}
	err = w.stream(call, hints[0], root)
	if ctx.Err() != nil {
		return w.bytes, context.Cause(ctx)
	}
	w.judge(hints[0], err)
	var local *localError
	if errors.As(err, &local) {
		return w.bytes, local.err
	}
	return w.bytes, nil
}

// walk is a tree that comes whole. A directory counts only when one that came before it refers to it: what a peer can
// make this node take is the tree that root names, once.
type walk struct {
	fetcher  *Fetcher
	patience time.Duration // without a message
	limits   tree.Limits
	expected map[digest.Digest]bool // by those that came; false: it came itself
	left     int64                  // bytes of what is expected
	next     []cas.Blob             // verified, not stored yet
	waiting  int                    // bytes of next
	count    int                    // directories that came
	bytes    int64                  // of them
}

// judge notes how the peer did.
func (w *walk) judge(id peer.ID, err error) {
	s, absent := w.fetcher.standing, 0
	var local *localError
	switch {
	case errors.Is(err, errLie):
		s.lied(id)
	case status.Code(err) == codes.NotFound:
		absent = 1
	case err == nil, errors.Is(err, errEnough), errors.As(err, &local), status.Code(err) == codes.ResourceExhausted:
	default:
		s.failed(id)
	}
	s.gave(id, w.count, w.bytes, absent)
}

// stream asks for the tree and stores it as it comes. It is broken off when no message comes within patience.
func (w *walk) stream(ctx context.Context, id peer.ID, root digest.Digest) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(w.patience, func() { cancel(errStalled) })
	defer watch.Stop()
	conn, err := w.fetcher.options.Dialer.Bulk(ctx, id)
	if err != nil {
		return err
	}
	q := &repb.GetTreeRequest{RootDigest: root.Proto(), DigestFunction: root.Function().Proto()}
	pages, err := repb.NewContentAddressableStorageClient(conn).GetTree(ctx, q)
	for err == nil {
		// A message without fields keeps all it gets as it came, so that digests are of the bytes that were stored.
		page := &emptypb.Empty{}
		if err = pages.RecvMsg(page); err != nil {
			break
		}
		watch.Stop() // time this node takes itself is not the peer's
		if err = w.page(ctx, root.Function(), page.ProtoReflect().GetUnknown()); err == nil {
			watch.Reset(w.patience)
		}
	}
	if err != io.EOF && !errors.Is(err, errEnough) {
		if stored := w.store(context.WithoutCancel(ctx)); stored != nil {
			return stored
		}
		return err
	}
	return w.store(ctx)
}

// page takes one message: fields 1 are directories.
func (w *walk) page(ctx context.Context, fn digest.Function, b []byte) error {
	if err := w.fetcher.receive(ctx, len(b)); err != nil {
		return err
	}
	before := w.count
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errLie
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return errLie
		}
		if number == 1 && kind == protowire.BytesType {
			dir, _ := protowire.ConsumeBytes(b[n:])
			if err := w.directory(fn, dir); err != nil {
				return err
			}
		}
		b = b[n+size:]
	}
	if w.count == before {
		return fmt.Errorf("a message without directories: %w", errLie)
	}
	if w.waiting < BatchBytes/2 {
		return nil
	}
	return w.store(ctx)
}

// directory takes one directory.
func (w *walk) directory(fn digest.Function, b []byte) error {
	d := fn.Of(b)
	if !w.expected[d] {
		return fmt.Errorf("directory %s: %w", d.Short(), errLie)
	}
	w.expected[d] = false
	w.next = append(w.next, cas.Blob{Digest: d, Data: b})
	w.waiting += len(b)
	w.count++
	w.bytes += d.Size()
	dir, err := tree.Decode(fn, b)
	if err != nil {
		return errEnough // who loads the tree says what is wrong with it
	}
	for i := range dir.Directories {
		sub := dir.Directories[i].Digest
		if _, known := w.expected[sub]; !known {
			w.expected[sub] = true
			w.left += min(sub.Size(), w.limits.MaxDirectoryBytes)
		}
	}
	if w.left > w.limits.MaxDirectoryBytes || len(w.expected) > w.limits.MaxNodes {
		return errEnough
	}
	return nil
}

// store keeps what came and is not here; that most of it is here is errEnough.
func (w *walk) store(ctx context.Context) error {
	if len(w.next) == 0 {
		return nil
	}
	ds := make([]digest.Digest, len(w.next))
	for i, b := range w.next {
		ds[i] = b.Digest
	}
	absent, err := w.fetcher.options.Store.Missing(ctx, ds)
	if err != nil {
		return &localError{err}
	}
	fresh := make(map[digest.Digest]bool, len(absent))
	for _, d := range absent {
		fresh[d] = true
	}
	blobs := make([]cas.Blob, 0, len(absent))
	for _, b := range w.next {
		if fresh[b.Digest] {
			blobs = append(blobs, b)
		}
	}
	w.next, w.waiting = nil, 0
	for _, err := range w.fetcher.options.Store.PutBatch(ctx, blobs) {
		if err != nil {
			return &localError{err}
		}
	}
	if len(absent) < len(ds)/2 {
		return errEnough
	}
	return nil
}
