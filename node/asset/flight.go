package asset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// errClosed ends downloads when the service is closed.
var errClosed = fmt.Errorf("downloads: %w", cas.ErrClosed)

// wanted is one URI to download.
type wanted struct {
	uri        string
	fn         digest.Function
	qualifiers *qualifiers
	at         int // number of uri in its request
	timeout    time.Duration
}

// key tells downloads apart that may give different content.
func (w wanted) key() [32]byte {
	h := sha256.New()
	add := func(s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }
	add(w.fn.String())
	add(w.uri)
	plain := slices.Clone(w.qualifiers.plain)
	slices.SortFunc(plain, func(a, b index.Qualifier) int { return cmp.Compare(a.Name, b.Name) })
	for _, q := range plain {
		add(q.Name)
		add(q.Value)
	}
	var headers []string
	for name, values := range w.qualifiers.headersFor(w.at) {
		headers = append(headers, fmt.Sprintf("%s:%q", name, values))
	}
	slices.Sort(headers)
	for _, line := range headers {
		add(line)
	}
	return [32]byte(h.Sum(nil))
}

// flights are the downloads going on. Each is a goroutine of its own, which close waits for.
type flights struct {
	downloader *downloader
	assets     Assets
	slots      chan struct{} // one for each download that may go on
	going      sync.WaitGroup

	mu     sync.Mutex // guards everything below
	byKey  map[[32]byte]*flight
	active map[*flight]struct{}
	closed bool
}

// flight is one download. The result is set before done is closed.
type flight struct {
	begun  time.Time
	cancel context.CancelCauseFunc
	done   chan struct{}
	digest digest.Digest
	err    error
}

func newFlights(d *downloader, assets Assets, parallel int) *flights {
	return &flights{
		downloader: d, assets: assets, slots: make(chan struct{}, parallel),
		byKey: map[[32]byte]*flight{}, active: map[*flight]struct{}{},
	}
}

// close cuts all downloads off and waits for their end.
func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	for one := range f.active {
		one.cancel(errClosed)
	}
	f.mu.Unlock()
	f.going.Wait()
	f.downloader.transport.CloseIdleConnections()
}

// fetch waits for a download of w, which it begins unless one is going on that is young enough. It
// waits no longer than w.timeout; the download goes on even if ctx ends.
func (f *flights) fetch(ctx context.Context, w wanted, oldest time.Time) (digest.Digest, error) {
	one, err := f.join(w, oldest)
	if err != nil {
		return digest.Digest{}, err
	}
	timer := time.NewTimer(w.timeout)
	defer timer.Stop()
	select {
	case <-one.done:
		return one.digest, one.err
	case <-timer.C:
		return digest.Digest{}, upstream(codes.DeadlineExceeded, "the download was not complete in time")
	case <-ctx.Done():
		return digest.Digest{}, ctx.Err()
	}
}

// join finds the download of w or begins it. One that began before oldest does not do, unless oldest
// is in the future, where nothing can satisfy it and the client means: fetch again.
func (f *flights) join(w wanted, oldest time.Time) (*flight, error) {
	now := time.Now()
	k := w.key()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	if one := f.byKey[k]; one != nil && (!one.begun.Before(oldest) || oldest.After(now)) {
		return one, nil
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	one := &flight{begun: now, cancel: cancel, done: make(chan struct{})}
	f.byKey[k] = one
	f.active[one] = struct{}{}
	f.going.Go(func() {
		one.digest, one.err = f.run(ctx, w, now)
		cancel(nil)
		f.mu.Lock()
		if f.byKey[k] == one {
			delete(f.byKey, k)
		}
		delete(f.active, one)
		f.mu.Unlock()
		close(one.done)
	})
	return one, nil
}

// run downloads w and has the index remember it. life ends with the service.
func (f *flights) run(life context.Context, w wanted, begun time.Time) (digest.Digest, error) {
	ctx, cancel := context.WithTimeout(life, w.timeout)
	defer cancel()
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return digest.Digest{}, blame(ctx, ctx.Err())
	}
	d, err := f.downloader.get(ctx, w)
	if err != nil {
		return d, err
	}
	// The content is here: remembering it is not part of the client's timeout.
	err = f.assets.Push(life, index.Asset{
		Kind: index.Blob, URIs: []string{w.uri}, Qualifiers: w.qualifiers.identity(), Digest: d, Pushed: begun,
	})
	if errors.Is(err, index.ErrTooLarge) {
		return d, nil // it lives as long as any other blob
	}
	return d, err
}
