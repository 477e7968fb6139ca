package wrong

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// fetchLimit bounds what is fetched from an origin, in bytes.
const fetchLimit = 64 << 20

// asset is an association of a push.
type asset struct {
	digest  *repb.Digest
	pushed  time.Time
	expires time.Time // zero: never
}

// request is what the four methods have in common.
type request struct {
	kind       string // "blob" or "directory"
	uris       []string
	qualifiers []*assetpb.Qualifier
	function   repb.DigestFunction_Value
}

// key names an asset: kind, function, URI and the qualifiers in order of their names.
func (s *Server) assetKey(r request, uri string) string {
	qs := slices.Clone(r.qualifiers)
	if !s.has(QualifiersOrdered) {
		slices.SortFunc(qs, func(a, b *assetpb.Qualifier) int { return strings.Compare(a.Name, b.Name) })
	}
	kind := r.kind
	if s.has(DirectoriesAreBlobs) {
		kind = "blob"
	}
	fn, _ := digest.FunctionFromProto(r.function) // examined by the caller
	return fmt.Sprintf("%s %s %q %q", kind, fn, uri, fmt.Sprint(qs))
}

// examine refuses what no fetch and no push may ask.
func (s *Server) examine(r request, noURI Defect) error {
	if len(r.uris) == 0 && noURI == FetchNoURIIsNotFound && s.has(noURI) {
		return status.Error(codes.NotFound, "no URI")
	}
	if len(r.uris) == 0 && !s.has(noURI) {
		return status.Error(codes.InvalidArgument, "no URI")
	}
	if _, err := digest.FunctionFromProto(r.function); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	bad := &errdetails.BadRequest{}
	for _, q := range r.qualifiers {
		known := slices.Contains([]string{"resource_type", "checksum.sri", "directory", "vcs.branch", "vcs.commit"}, q.Name)
		if !known && !s.has(QualifierIgnored) {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: "qualifiers.name", Description: fmt.Sprintf("%q not supported", q.Name),
			})
		}
	}
	if len(bad.FieldViolations) == 0 {
		return nil
	}
	st := status.New(codes.InvalidArgument, "a qualifier is not supported")
	if s.has(QualifierUnnamed) {
		return st.Err()
	}
	detailed, err := st.WithDetails(bad)
	if err != nil {
		return status.Errorf(codes.Internal, "encode details: %v", err)
	}
	return detailed.Err()
}

// push keeps an association under each URI.
func (s *Server) push(r request, d *repb.Digest, expires *timestamppb.Timestamp) error {
	if err := s.examine(r, PushNoURIAccepted); err != nil {
		return err
	}
	if _, err := s.digest(r.function, d); err != nil {
		return err
	}
	a := asset{digest: d, pushed: time.Now()}
	if expires != nil && !s.has(ExpiryIgnored) {
		a.expires = expires.AsTime()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, uri := range r.uris {
		key := s.assetKey(r, uri)
		if _, kept := s.assets[key]; i > 0 && s.has(PushFirstURIOnly) || kept && s.has(PushKept) {
			continue
		}
		s.assets[key] = a
	}
	return nil
}

// pushed finds an association that is neither expired nor too old.
func (s *Server) pushed(r request, oldest *timestamppb.Timestamp) (*repb.Digest, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, uri := range r.uris {
		a, found := s.assets[s.assetKey(r, uri)]
		if !found || !a.expires.IsZero() && a.expires.Before(time.Now()) || i > 0 && s.has(FetchFirstURIOnly) {
			continue
		}
		if oldest != nil && a.pushed.Before(oldest.AsTime()) && !s.has(OldestIgnored) {
			continue
		}
		return a.digest, uri
	}
	return nil, ""
}

// PushBlob associates URIs with a blob.
func (s *Server) PushBlob(_ context.Context, req *assetpb.PushBlobRequest) (*assetpb.PushBlobResponse, error) {
	if len(req.ReferencesBlobs)+len(req.ReferencesDirectories) > 0 && s.has(ReferencesRefused) {
		return nil, status.Error(codes.InvalidArgument, "references")
	}
	return &assetpb.PushBlobResponse{}, s.push(request{"blob", req.Uris, req.Qualifiers, req.DigestFunction}, req.BlobDigest, req.ExpireAt)
}

// PushDirectory associates URIs with a directory.
func (s *Server) PushDirectory(_ context.Context, req *assetpb.PushDirectoryRequest) (*assetpb.PushDirectoryResponse, error) {
	r := request{"directory", req.Uris, req.Qualifiers, req.DigestFunction}
	return &assetpb.PushDirectoryResponse{}, s.push(r, req.RootDirectoryDigest, req.ExpireAt)
}

// FetchDirectory gives what was pushed.
func (s *Server) FetchDirectory(_ context.Context, req *assetpb.FetchDirectoryRequest) (*assetpb.FetchDirectoryResponse, error) {
	r := request{"directory", req.Uris, req.Qualifiers, req.DigestFunction}
	if err := s.examine(r, FetchNoURIIsNotFound); err != nil {
		return nil, err
	}
	d, uri := s.pushed(r, req.OldestContentAccepted)
	if d == nil {
		return &assetpb.FetchDirectoryResponse{Status: status.New(codes.NotFound, "asset").Proto()}, nil
	}
	return &assetpb.FetchDirectoryResponse{Status: &spb.Status{}, Uri: uri, RootDirectoryDigest: d, DigestFunction: req.DigestFunction}, nil
}

// FetchBlob gives what was pushed, or what an http URI gives.
func (s *Server) FetchBlob(ctx context.Context, req *assetpb.FetchBlobRequest) (*assetpb.FetchBlobResponse, error) {
	r := request{"blob", req.Uris, req.Qualifiers, req.DigestFunction}
	if err := s.examine(r, FetchNoURIIsNotFound); err != nil {
		return nil, err
	}
	said := req.DigestFunction
	if s.has(AssetFunctionUnsaid) {
		said = repb.DigestFunction_UNKNOWN
	}
	if d, uri := s.pushed(r, req.OldestContentAccepted); d != nil {
		return &assetpb.FetchBlobResponse{Status: &spb.Status{}, Uri: uri, BlobDigest: d, DigestFunction: said}, nil
	}
	failure := status.New(codes.NotFound, "asset")
	for i, uri := range req.Uris {
		if !strings.HasPrefix(uri, "http://") && !strings.HasPrefix(uri, "https://") || i > 0 && s.has(FetchFirstURIOnly) {
			continue
		}
		data, err := s.download(ctx, uri, req.Qualifiers)
		if err == nil {
			fn, _ := digest.FunctionFromProto(req.DigestFunction) // examined above
			return &assetpb.FetchBlobResponse{Status: &spb.Status{}, Uri: uri, BlobDigest: s.putNew(fn, data), DigestFunction: said}, nil
		}
		failure = status.Convert(err)
	}
	switch {
	case s.has(UnknownAssetIsEmpty):
		return &assetpb.FetchBlobResponse{Status: &spb.Status{}, BlobDigest: digest.SHA256.Empty().Proto()}, nil
	case s.has(UpstreamIsOurError):
		return nil, failure.Err()
	}
	return &assetpb.FetchBlobResponse{Status: failure.Proto()}, nil
}

// download gets a page and compares it with its checksum.
func (s *Server) download(ctx context.Context, uri string, qualifiers []*assetpb.Qualifier) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		return nil, status.Errorf(codes.NotFound, "%s: %s", uri, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, fetchLimit))
	if err != nil {
		return nil, status.Error(codes.Aborted, err.Error())
	}
	sum := sha256.Sum256(data)
	for _, q := range qualifiers {
		if q.Name == "checksum.sri" && q.Value != "sha256-"+base64.StdEncoding.EncodeToString(sum[:]) && !s.has(ChecksumIgnored) {
			return nil, status.Errorf(codes.Aborted, "%s: the content does not match %s", uri, q.Value)
		}
	}
	return data, nil
}
