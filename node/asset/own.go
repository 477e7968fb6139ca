package asset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// nobody is an Origin without URIs.
type nobody struct{}

func (nobody) Owns(string) bool { return false }
func (nobody) Blob(context.Context, digest.Function, string) (digest.Digest, error) {
	return digest.Digest{}, index.ErrNotFound
}
func (nobody) Directory(context.Context, digest.Function, string) (digest.Digest, error) {
	return digest.Digest{}, index.ErrNotFound
}

// ask is one of an Origin's two questions.
type ask func(ctx context.Context, fn digest.Function, uri string) (digest.Digest, error)

// own asks the origin for each of its URIs in turn. Its content is made when it is asked for, so that
// none is too old: Bazel sends a moment in the future for oldest_content_accepted when it knows no
// checksum. Headers and bazel.canonical_id mean nothing to it. Errors: index.ErrNotFound, with the
// origin's own words where it has any.
func (s *Service) own(ctx context.Context, r *request, ask ask) (digest.Digest, string, error) {
	failure := index.ErrNotFound
	for _, uri := range r.uris {
		if !s.options.Origin.Owns(uri) {
			continue
		}
		if err := r.qualifiers.forDownload(); err != nil {
			return digest.Digest{}, uri, err
		}
		d, err := ask(ctx, r.fn, uri)
		if err == nil || !errors.Is(err, index.ErrNotFound) {
			return d, uri, err
		}
		failure = err
	}
	return digest.Digest{}, "", failure
}

// ownBlob answers FetchBlob from the origin, or gives index.ErrNotFound.
func (s *Service) ownBlob(ctx context.Context, r *request) (*rapb.FetchBlobResponse, error) {
	d, uri, err := s.own(ctx, r, s.options.Origin.Blob)
	if err != nil {
		return nil, err
	}
	response := &rapb.FetchBlobResponse{Uri: uri, DigestFunction: r.fn.Proto()}
	has, err := s.satisfies(ctx, d, r.qualifiers.integrity)
	if err != nil {
		return nil, err
	}
	if !has {
		// An error of ours, not of somebody upstream; and Bazel 7.7.1 does not look into response.status.
		return nil, field("qualifiers", "checksum.sri: the content is %s/%s, which does not have the checksum asked for", d.Function(), d)
	}
	response.BlobDigest = d.Proto()
	return response, nil
}

// satisfies reports whether a blob has one of the checksums.
func (s *Service) satisfies(ctx context.Context, d digest.Digest, want integrity) (bool, error) {
	if len(want) == 0 {
		return true, nil
	}
	content, err := s.blobs.NewReader(ctx, d)
	if err != nil {
		return false, err
	}
	defer content.Close()
	v := want.verifier()
	_, err = io.Copy(v, io.NewSectionReader(content, 0, d.Size()))
	return v.satisfied(), err
}

// pushable refuses to push under URIs that are the origin's, and content that is not what checksum.sri
// says: whoever fetched it would take it for verified.
func (s *Service) pushable(ctx context.Context, a *index.Asset, q *qualifiers) error {
	for i, uri := range a.URIs {
		if s.options.Origin.Owns(uri) {
			return field(fmt.Sprintf("uris[%d]", i), "%.200q is answered by the node itself", uri)
		}
	}
	if len(q.integrity) == 0 {
		return nil
	}
	if a.Kind == index.Directory {
		return field("qualifiers.name", "%s says nothing about directories", checksumSRI)
	}
	has, err := s.satisfies(ctx, a.Digest, q.integrity)
	switch {
	case errors.Is(err, cas.ErrNotFound):
		return nil // the index tells of everything that is absent
	case err == nil && !has:
		return field("qualifiers.value", "%s is not that of the content", checksumSRI)
	}
	return err
}

// unknown says of URIs that lead to nothing why nothing was downloaded.
func (s *Service) unknown(r *request, err error) error {
	first := r.uris[0]
	if !errors.Is(err, index.ErrNotFound) || isHTTP(first) || s.options.Origin.Owns(first) || strings.HasPrefix(first, "urn:") {
		return err
	}
	return fmt.Errorf("%w: nothing was pushed under %.200q, and only http and https URIs are downloaded", err, first)
}
