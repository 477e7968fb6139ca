package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/buildmesh/buildmesh/exec/image"
)

// Options of a Registry.
type Options struct {
	// Allowed are registries as host or host:port; when there are any, no others are asked, and these may
	// be at private addresses.
	Allowed []string
	// Public reports whether an address may be connected to although nobody allowed it.
	Public func(network, address string) error
	// Silence is how long a registry may take to begin or to continue an answer: 30 s.
	Silence time.Duration
}

// Registry fetches. Make it with New.
type Registry struct {
	options Options
	client  *http.Transport
}

// New makes a Registry.
func New(o Options) *Registry {
	if o.Silence <= 0 {
		o.Silence = 30 * time.Second
	}
	r := &Registry{options: o}
	r.client = &http.Transport{
		DialContext: r.dial, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: o.Silence,
		IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4, ForceAttemptHTTP2: true,
	}
	return r
}

// Close ends idle connections.
func (r *Registry) Close() { r.client.CloseIdleConnections() }

// dial connects to address, which is host:port with the name as it was asked for.
func (r *Registry) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if !r.allowed(address) {
		dialer.Control = func(network, address string, _ syscall.RawConn) error {
			if err := r.options.Public(network, address); err != nil {
				return fmt.Errorf("%w: %w; name the registry in exec.image_registries", image.ErrForbidden, err)
			}
			return nil
		}
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &quiet{conn, r.options.Silence}, nil
}

// quiet ends a connection that says nothing for too long, also in the middle of an answer.
type quiet struct {
	net.Conn
	longest time.Duration
}

func (q *quiet) Read(p []byte) (int, error) {
	if err := q.SetReadDeadline(time.Now().Add(q.longest)); err != nil {
		return 0, err
	}
	return q.Conn.Read(p)
}

// allowed reports whether a host, with or without a port, was named by the owner.
func (r *Registry) allowed(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return slices.Contains(r.options.Allowed, address) || err == nil && slices.Contains(r.options.Allowed, host)
}

// Manifest implements image.Registry.
func (r *Registry) Manifest(ctx context.Context, ref image.Reference, hash v1.Hash) ([]byte, error) {
	if ref.Layout != "" {
		return layout(ref.Layout).manifest(hash)
	}
	puller, err := r.puller(ref)
	if err != nil {
		return nil, err
	}
	found, err := puller.Get(ctx, ref.Repository.Digest(hash.String()))
	if err != nil {
		return nil, explain(err)
	}
	return found.Manifest, nil
}

// Blob implements image.Registry.
func (r *Registry) Blob(ctx context.Context, ref image.Reference, hash v1.Hash) (io.ReadCloser, error) {
	if ref.Layout != "" {
		return layout(ref.Layout).open(hash)
	}
	puller, err := r.puller(ref)
	if err != nil {
		return nil, err
	}
	layer, err := puller.Layer(ctx, ref.Repository.Digest(hash.String()))
	if err != nil {
		return nil, explain(err)
	}
	blob, err := layer.Compressed()
	if err != nil {
		return nil, explain(err)
	}
	return blob, nil
}

// Resolve implements image.Registry.
func (r *Registry) Resolve(ctx context.Context, ref image.Reference) (v1.Hash, error) {
	if ref.Layout != "" {
		return layout(ref.Layout).resolve(ref.Tag)
	}
	puller, err := r.puller(ref)
	if err != nil {
		return v1.Hash{}, err
	}
	tag := ref.Tag
	if tag == "" {
		tag = name.DefaultTag
	}
	found, err := puller.Head(ctx, ref.Repository.Tag(tag))
	if err != nil {
		return v1.Hash{}, explain(err)
	}
	return found.Digest, nil
}

// puller prepares requests to a reference's repository.
func (r *Registry) puller(ref image.Reference) (*remote.Puller, error) {
	host := ref.Repository.RegistryStr()
	if len(r.options.Allowed) > 0 && !r.allowed(host) {
		return nil, fmt.Errorf("%w: %s is not one of exec.image_registries", image.ErrForbidden, host)
	}
	return remote.NewPuller(remote.WithTransport(r.client), remote.WithAuth(authn.Anonymous),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Steps: 3}), remote.WithUserAgent("buildmesh"))
}

// explain sorts the errors of a registry.
func explain(err error) error {
	var answer *transport.Error
	switch {
	case errors.Is(err, image.ErrForbidden), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &answer) && answer.StatusCode >= 400 && answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", image.ErrNotFound, err)
	}
	return fmt.Errorf("%w: %w", image.ErrUnreachable, err)
}
