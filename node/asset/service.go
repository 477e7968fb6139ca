package asset

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// Assets is the index behind the services: dht/asset's Index.
type Assets interface {
	// Push remembers an asset whose content is present.
	Push(ctx context.Context, a index.Asset) error
	// Fetch gives a complete asset and the URI that led to it.
	Fetch(ctx context.Context, q index.Query) (*index.Asset, string, error)
}

// Blobs is where downloads go.
type Blobs interface {
	// PutFile stores a file that nobody writes to any more; it may consume it.
	PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error)
	// NewReader opens one blob.
	NewReader(ctx context.Context, d digest.Digest) (*cas.Reader, error)
}

// Origin answers URIs that are this node's own: node/bridge's Origin. Their content is always fresh.
type Origin interface {
	// Owns reports whether a URI is answered here and nowhere else.
	Owns(uri string) bool
	// Blob gives the blob that uri names, with a digest made by fn; an error that wraps the index's
	// ErrNotFound when it is not here.
	Blob(ctx context.Context, fn digest.Function, uri string) (digest.Digest, error)
	// Directory is the same for directories.
	Directory(ctx context.Context, fn digest.Function, uri string) (digest.Digest, error)
}

// Options shape a Service; zero values mean the defaults told at each field.
type Options struct {
	// Dir is where downloads are written before they are stored: the service's own, on the blob
	// store's file system. Empty: nothing is downloaded.
	Dir string
	// MaxBytes is the largest download in bytes. Default: 8 GiB.
	MaxBytes int64
	// Timeout is for calls that ask for none, MaxTimeout what others are cut down to. Defaults: 10
	// minutes and an hour.
	Timeout, MaxTimeout time.Duration
	// Parallel is how many downloads go on at once; others wait. Default: 16.
	Parallel int
	// Allowed are addresses that may be connected to although they are not public.
	Allowed []netip.Prefix
	// Origin answers some URIs itself. Default: nobody does.
	Origin Origin
}

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 8 << 30
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.MaxTimeout <= 0 {
		o.MaxTimeout = time.Hour
	}
	if o.Parallel <= 0 {
		o.Parallel = 16
	}
	if o.Origin == nil {
		o.Origin = nobody{}
	}
	return o
}

// Service implements Fetch and Push.
type Service struct {
	rapb.UnsafeFetchServer
	rapb.UnsafePushServer
	assets  Assets
	blobs   Blobs
	options Options
	flights *flights // nil when nothing is downloaded
}

// New makes the services over an index and the blob store its content is in.
func New(assets Assets, blobs Blobs, o Options) (*Service, error) {
	o = o.withDefaults()
	s := &Service{assets: assets, blobs: blobs, options: o}
	if o.Dir == "" {
		return s, nil
	}
	d, err := newDownloader(blobs, o)
	if err != nil {
		return nil, fmt.Errorf("make downloader: %w", err)
	}
	s.flights = newFlights(d, assets, o.Parallel)
	return s, nil
}

// Register adds both services to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	rapb.RegisterFetchServer(r, s)
	rapb.RegisterPushServer(r, s)
}

// Close cuts downloads off and waits for their end. Calls that wait for one fail.
func (s *Service) Close() {
	if s.flights != nil {
		s.flights.close()
	}
}

// statusOf gives errors of the index their gRPC status; all others have theirs in reapi's table.
func statusOf(err error) error {
	var invalid *tree.InvalidError
	switch {
	case errors.Is(err, index.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, index.ErrTooLarge):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, index.ErrInvalid):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.As(err, &invalid):
		return reapi.Status(&reapi.FieldError{Field: "root_directory_digest", Reason: invalid.Error()})
	}
	return reapi.Status(err)
}

// field makes a *reapi.FieldError.
func field(name, format string, args ...any) error {
	return &reapi.FieldError{Field: name, Reason: fmt.Sprintf(format, args...)}
}

// checkNames validates what all four calls have: instance name, URIs and digest function.
func checkNames(instance string, uris []string, fv digestFunction) (digest.Function, error) {
	if err := reapi.CheckInstance(instance); err != nil {
		return 0, err
	}
	if len(uris) == 0 {
		return 0, field("uris", "at least one URI is needed")
	}
	if len(uris) > index.MaxURIs {
		return 0, field("uris", "%d URIs are more than %d", len(uris), index.MaxURIs)
	}
	for i, uri := range uris {
		if uri == "" || len(uri) > index.MaxURI {
			return 0, field(fmt.Sprintf("uris[%d]", i), "it has %d bytes, 1 to %d are allowed", len(uri), index.MaxURI)
		}
	}
	fn, err := digest.FunctionFromProto(fv)
	if err != nil {
		return 0, field("digest_function", "%v", err)
	}
	return fn, nil
}
