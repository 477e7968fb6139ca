package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

var (
	// errStalled is the cause a stream is broken off with that brings nothing.
	errStalled = errors.New("nothing comes")
	// errAbsent means that a provider does not have the blob.
	errAbsent = errors.New("the peer does not have it")
)

// pullLarge gets large blobs, a few at a time.
func (f *Fetcher) pullLarge(ctx context.Context, wants []*want) error {
	var pulling sync.WaitGroup
	errs := make([]error, len(wants))
	room := make(chan struct{}, streams)
	for i, w := range wants {
		room <- struct{}{}
		pulling.Go(func() {
			defer func() { <-room }()
			w.here, errs[i] = f.large(ctx, w)
		})
	}
	pulling.Wait()
	return errors.Join(errs...)
}

// large gets one blob and reports whether it is here; an error is the store's. When what several providers
// sent is not the blob, each of them is tried alone.
func (f *Fetcher) large(ctx context.Context, w *want) (bool, error) {
	from, err := f.whole(ctx, w.digest, w.providers)
	if !errors.Is(err, cas.ErrCorrupt) {
		return err == nil, fault(err)
	}
	if len(from) == 1 {
		f.standing.lied(from[0])
	}
	for _, id := range w.providers {
		if ctx.Err() != nil {
			return false, nil
		}
		if f.standing.avoided(id) {
			continue
		}
		_, err := f.whole(ctx, w.digest, []peer.ID{id})
		if errors.Is(err, cas.ErrCorrupt) {
			f.standing.lied(id)
			continue
		}
		if err == nil || fault(err) != nil {
			return err == nil, fault(err)
		}
	}
	return false, nil
}

// fault keeps the errors that are the store's.
func fault(err error) error {
	for _, store := range []error{cas.ErrFull, cas.ErrTooLarge, cas.ErrClosed} {
		if errors.Is(err, store) {
			return err
		}
	}
	return nil
}

// whole gets one blob from any of the providers and tells who took part. Errors: cas.ErrCorrupt when it is
// not the blob, ErrNotFound when they do not give all of it, or the store's.
func (f *Fetcher) whole(ctx context.Context, d digest.Digest, providers []peer.ID) (from []peer.ID, err error) {
	w, err := f.options.Store.NewWriter(ctx, d)
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	if len(providers) > 1 && d.Size() >= minRanges {
		from, err = f.ranges(ctx, w, d, providers)
	} else {
		from, err = f.section(ctx, section{d, 0, d.Size()}, providers, w)
	}
	if err != nil {
		return from, err
	}
	return from, w.Commit()
}

// section is a part of a blob.
type section struct {
	digest  digest.Digest
	at, end int64
}

// section gets a part of a blob in order: from the first provider as long as that goes well, then on from
// where it stood at the next one. Those that were only slow are asked again, with more patience, when the others have
// failed too: on a busy machine every one of them may be slow for a while.
func (f *Fetcher) section(ctx context.Context, s section, providers []peer.ID, w io.Writer) (from []peer.ID, err error) {
	patience := StallAfter
	if len(providers) == 1 {
		patience = f.standing.patience(providers[0])
	}
	left, slow := slices.Clone(providers), []peer.ID(nil)
	for ctx.Err() == nil {
		if len(left) == 0 {
			if len(slow) == 0 || patience == GiveUp {
				break
			}
			left, slow, patience = slow, nil, min(4*patience, GiveUp)
		}
		id, began := left[0], time.Now()
		n, err := f.stream(ctx, id, s, patience, w)
		if err == nil {
			f.brought(id, n, began)
		}
		if s.at += n; n > 0 && !slices.Contains(from, id) {
			from = append(from, id)
		}
		f.note(ctx, id, s, n, err)
		var local *localError
		switch {
		case errors.As(err, &local):
			return from, local.err
		case errors.Is(err, errLie):
			return from, fmt.Errorf("%w: %w", err, cas.ErrCorrupt) // nor is what came before to be believed
		case s.at == s.end:
			return from, nil
		case errors.Is(err, errStalled) && len(providers) == 1:
			f.standing.hung(id)
		case errors.Is(err, errStalled):
			slow = append(slow, id)
		}
		left = left[1:]
	}
	if err := ctx.Err(); err != nil {
		return from, err
	}
	return from, ErrNotFound
}

// note keeps how a provider did with a stream.
func (f *Fetcher) note(ctx context.Context, id peer.ID, s section, n int64, err error) {
	var local *localError
	switch {
	case ctx.Err() != nil || errors.As(err, &local):
	case errors.Is(err, errAbsent):
		f.standing.gave(id, 0, 0, 1)
	case errors.Is(err, errLie):
		f.standing.lied(id)
	case err != nil:
		f.standing.gave(id, 0, n, 0)
		f.standing.failed(id)
	case s.end == s.digest.Size():
		f.standing.gave(id, 1, n, 0)
	default:
		f.standing.gave(id, 0, n, 0)
	}
}

// localError is an error of where the bytes go, not of where they come from.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }

// step is how many bytes must come within a stream's patience, but for the last ones.
const step = 256 << 10

// stream reads a section from one provider and gives how many bytes came. It is broken off when less
// than step comes within patience.
func (f *Fetcher) stream(ctx context.Context, id peer.ID, s section, patience time.Duration, w io.Writer) (n int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(patience, func() { cancel(errStalled) })
	defer watch.Stop()
	conn, err := f.options.Dialer.Bulk(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("fetch from %s: %w", id.Short(), errors.Join(err, context.Cause(ctx)))
	}
	parts, err := bspb.NewByteStreamClient(conn).Read(ctx, &bspb.ReadRequest{
		ResourceName: resource(s.digest), ReadOffset: s.at, ReadLimit: s.end - s.at,
	})
	if err != nil {
		return 0, fmt.Errorf("fetch from %s: %w", id.Short(), errors.Join(err, context.Cause(ctx)))
	}
	var part bspb.ReadResponse // one for all: its room is used again
	for fresh := int64(0); ; {
		err := parts.RecvMsg(&part)
		switch {
		case err == io.EOF && n == s.end-s.at:
			return n, nil
		case err == io.EOF:
			return n, fmt.Errorf("fetch from %s: it ends early: %w", id.Short(), io.ErrUnexpectedEOF)
		case status.Code(err) == codes.NotFound:
			return n, errAbsent
		case err != nil:
			return n, fmt.Errorf("fetch from %s: %w", id.Short(), errors.Join(err, context.Cause(ctx)))
		case int64(len(part.Data)) > s.end-s.at-n:
			return n, fmt.Errorf("fetch from %s: it does not end: %w", id.Short(), errLie)
		}
		if f.bounded() { // time this node takes itself is not the provider's
			watch.Stop()
			if err := f.receive(ctx, len(part.Data)); err != nil {
				return n, err
			}
			watch.Reset(patience)
		}
		if _, err := w.Write(part.Data); err != nil {
			return n, &localError{err}
		}
		n += int64(len(part.Data))
		if fresh += int64(len(part.Data)); fresh >= step {
			fresh = 0
			watch.Reset(patience)
		}
	}
}

// resource is a blob's name in ByteStream.
func resource(d digest.Digest) string {
	name := "blobs/"
	if d.Function() != digest.SHA256 {
		name += d.Function().String() + "/"
	}
	return name + d.Hex() + "/" + strconv.FormatInt(d.Size(), 10)
}
