package asset

import (
	"context"
	"errors"
	"strings"
	"time"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// digestFunction is the protocol's enumeration.
type digestFunction = repb.DigestFunction_Value

// request is what FetchBlob and FetchDirectory have in common, checked.
type request struct {
	fn         digest.Function
	uris       []string
	qualifiers *qualifiers
	oldest     time.Time // zero: content of any age
	timeout    time.Duration
}

// fields is what the two messages have in common.
type fields interface {
	GetInstanceName() string
	GetUris() []string
	GetQualifiers() []*rapb.Qualifier
	GetDigestFunction() digestFunction
	times
}

type times interface {
	GetTimeout() *durationpb.Duration
	GetOldestContentAccepted() *timestamppb.Timestamp
}

// check validates a request.
func (s *Service) check(q fields) (*request, error) {
	fn, err := checkNames(q.GetInstanceName(), q.GetUris(), q.GetDigestFunction())
	if err != nil {
		return nil, err
	}
	r := &request{fn: fn, uris: q.GetUris(), timeout: s.options.Timeout}
	if r.qualifiers, err = parseQualifiers(q.GetQualifiers(), len(r.uris)); err != nil {
		return nil, err
	}
	if t := q.GetOldestContentAccepted(); t != nil {
		if err := t.CheckValid(); err != nil {
			return nil, field("oldest_content_accepted", "%v", err)
		}
		r.oldest = t.AsTime()
	}
	if d := q.GetTimeout(); d != nil {
		if err := d.CheckValid(); err != nil || d.AsDuration() < 0 {
			return nil, field("timeout", "%v is not a timeout", d)
		}
		if d.AsDuration() > 0 {
			r.timeout = min(d.AsDuration(), s.options.MaxTimeout)
		}
	}
	return r, nil
}

func (r *request) query(kind index.Kind) index.Query {
	return index.Query{Kind: kind, Function: r.fn, URIs: r.uris, Qualifiers: r.qualifiers.identity(), Oldest: r.oldest}
}

// FetchBlob implements Fetch: pushed before, downloaded before, this node's own, or downloaded now.
func (s *Service) FetchBlob(ctx context.Context, q *rapb.FetchBlobRequest) (*rapb.FetchBlobResponse, error) {
	r, err := s.check(q)
	if err != nil {
		return nil, statusOf(err)
	}
	a, uri, err := s.assets.Fetch(ctx, r.query(index.Blob))
	if err == nil {
		return &rapb.FetchBlobResponse{
			Uri: uri, BlobDigest: a.Digest.Proto(), DigestFunction: r.fn.Proto(), ExpiresAt: timestamp(a.Expires),
		}, nil
	}
	if errors.Is(err, index.ErrNotFound) {
		var response *rapb.FetchBlobResponse
		if response, err = s.ownBlob(ctx, r); err == nil {
			return response, nil
		}
	}
	if !errors.Is(err, index.ErrNotFound) || s.flights == nil || !s.downloadable(r) {
		return nil, statusOf(s.unknown(r, err))
	}
	if err := r.qualifiers.forDownload(); err != nil {
		return nil, err
	}
	d, uri, err := s.download(ctx, r)
	var upstream *UpstreamError
	switch {
	case errors.As(err, &upstream):
		return &rapb.FetchBlobResponse{
			Status: &spb.Status{Code: int32(upstream.Code), Message: upstream.Error()}, Uri: uri, DigestFunction: r.fn.Proto(),
		}, nil
	case err != nil:
		return nil, statusOf(err)
	}
	return &rapb.FetchBlobResponse{Uri: uri, BlobDigest: d.Proto(), DigestFunction: r.fn.Proto()}, nil
}

// FetchDirectory implements Fetch for directories that were pushed or are this node's own.
func (s *Service) FetchDirectory(ctx context.Context, q *rapb.FetchDirectoryRequest) (*rapb.FetchDirectoryResponse, error) {
	r, err := s.check(q)
	if err != nil {
		return nil, statusOf(err)
	}
	a, uri, err := s.assets.Fetch(ctx, r.query(index.Directory))
	if errors.Is(err, index.ErrNotFound) {
		var d digest.Digest
		d, uri, err = s.own(ctx, r, s.options.Origin.Directory)
		a = &index.Asset{Digest: d}
	}
	if err != nil {
		return nil, statusOf(err)
	}
	return &rapb.FetchDirectoryResponse{
		Uri: uri, RootDirectoryDigest: a.Digest.Proto(), DigestFunction: r.fn.Proto(), ExpiresAt: timestamp(a.Expires),
	}, nil
}

// timestamp gives nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// downloadable reports whether any URI can be contacted.
func (s *Service) downloadable(r *request) bool {
	for _, uri := range r.uris {
		if s.contacted(uri) {
			return true
		}
	}
	return false
}

// contacted reports whether content is downloaded from uri.
func (s *Service) contacted(uri string) bool { return isHTTP(uri) && !s.options.Origin.Owns(uri) }

// isHTTP reports whether uri has the scheme http or https. All others are names.
func isHTTP(uri string) bool {
	scheme, _, found := strings.Cut(uri, "://")
	return found && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// download tries the URIs in turn within the request's timeout. On failure it gives the last URI with
// its *UpstreamError, or an error of our own.
func (s *Service) download(ctx context.Context, r *request) (digest.Digest, string, error) {
	deadline := time.Now().Add(r.timeout)
	var last string
	var failure error
	for i, uri := range r.uris {
		if !s.contacted(uri) {
			continue
		}
		left := time.Until(deadline)
		if left <= 0 {
			break // failure is the timeout of the URI before
		}
		d, err := s.flights.fetch(ctx, wanted{uri: uri, fn: r.fn, qualifiers: r.qualifiers, at: i, timeout: left}, r.oldest)
		if err == nil {
			return d, uri, nil
		}
		var upstream *UpstreamError
		if !errors.As(err, &upstream) {
			return d, uri, err
		}
		last, failure = uri, err
	}
	return digest.Digest{}, last, failure
}
