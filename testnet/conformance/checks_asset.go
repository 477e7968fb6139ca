package conformance

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// assetChecks hold of the Remote Asset API, which a server may leave out.
func assetChecks() []Check {
	fetch, both := []Feature{Cache, Fetch}, []Feature{Cache, Fetch, Push}
	return []Check{
		{
			Claim: "fetching_without_URIs_is_INVALID_ARGUMENT", Needs: fetch, Run: checkFetchNoURI, Source: "FetchBlobRequest.uris; BuildStream probes with it",
			Rule: "FetchBlob and FetchDirectory without a URI get INVALID_ARGUMENT",
		},
		{
			Claim: "pushing_without_URIs_is_INVALID_ARGUMENT", Needs: []Feature{Push}, Run: checkPushNoURI, Source: "PushBlobRequest.uris; BuildStream probes with it",
			Rule: "PushBlob and PushDirectory without a URI get INVALID_ARGUMENT",
		},
		{
			Claim: "an_unsupported_qualifier_is_INVALID_ARGUMENT_by_name", Needs: fetch, Run: checkUnknownQualifier, Source: "service Fetch, Errors",
			Rule: `a BadRequest detail has a violation of field "qualifiers.name" whose description names the qualifier`,
		},
		{
			Claim: "the_standard_qualifiers_are_understood", Needs: both, Run: checkStandardQualifiers, Source: "qualifiers.md; BuildStream pushes with them",
			Rule: "resource_type, checksum.sri, directory, vcs.branch and vcs.commit are accepted, in any order, and tell assets apart",
		},
		{
			Claim: "an_unknown_asset_is_NOT_FOUND", Needs: fetch, Run: checkFetchUnknown, Source: "FetchBlobResponse.status",
			Rule: "NOT_FOUND, in response.status or as the call's",
		},
		{
			Claim: "a_pushed_blob_is_fetched", Needs: both, Run: checkPushBlob, Source: "rpc PushBlob; rpc FetchBlob",
			Rule: "by any of its URIs, with the digest pushed, and the URI that matched is told",
		},
		{
			Claim: "a_pushed_directory_is_fetched", Needs: both, Run: checkPushDirectory, Source: "rpc PushDirectory; rpc FetchDirectory",
			Rule: "root_directory_digest is the one pushed; blobs and directories under one URI are apart",
		},
		{
			Claim: "a_second_push_replaces_the_first", Needs: both, Run: checkPushAgain, Source: "rpc PushBlob",
			Rule: "the last association is what is fetched",
		},
		{
			Claim: "expire_at_is_honoured", Needs: both, Level: Should, Run: checkExpire, Source: "PushBlobRequest.expire_at",
			Rule: "an asset is not fetched after the time given with it",
		},
		{
			Claim: "oldest_content_accepted_is_honoured", Needs: both, Run: checkOldest, Source: "FetchBlobRequest.oldest_content_accepted",
			Rule: "content pushed before that time is not served, younger content is",
		},
		{
			Claim: "references_are_accepted", Needs: both, Run: checkReferences, Source: "PushBlobRequest.references_blobs, references_directories",
			Rule: "a push may name blobs and directories to keep, and they can be read as long as the asset is fetched",
		},
		{
			Claim: "assets_are_kept_in_every_function", Needs: both, Run: checkAssetFunctions, Source: "FetchBlobRequest.digest_function",
			Rule: "the digest is made by the function asked for, and the response says which",
		},
		{
			Claim: "an_http_URI_is_fetched", Needs: fetch, Run: checkFetchHTTP, Source: "Bazel's --experimental_remote_downloader",
			Rule: "the content of an http URI is stored in the CAS; the next URI is tried when one fails",
		},
		{
			Claim: "a_checksum_is_compared", Needs: fetch, Run: checkFetchChecksum, Source: "qualifiers.md, checksum.sri; service Fetch: MUST ensure",
			Rule: "content that does not match checksum.sri is an error in response.status and is not served",
		},
		{
			Claim: "failures_upstream_stand_in_the_response", Needs: fetch, Run: checkFetchUpstream, Source: "service Fetch: errors outside the server's control",
			Rule: "404, 500 and an unreachable origin are response.status, not the call's",
		},
	}
}

func urn() string { return "urn:uuid:" + newUUID() }

func (s *Subject) fetchBlob(ctx context.Context, req *assetpb.FetchBlobRequest) (*assetpb.FetchBlobResponse, error) {
	req.InstanceName = s.Instance
	if req.DigestFunction == 0 {
		req.DigestFunction = s.Function.Proto()
	}
	return s.Fetch.FetchBlob(ctx, req)
}

func (s *Subject) pushBlob(ctx context.Context, t T, req *assetpb.PushBlobRequest) {
	t.Helper()
	req.InstanceName, req.DigestFunction = s.Instance, s.Function.Proto()
	if _, err := s.Push.PushBlob(ctx, req); err != nil {
		t.Fatalf("PushBlob of %v: %v", req.Uris, err)
	}
}

// wantAsset fails unless uri is fetched as d.
func (s *Subject) wantAsset(ctx context.Context, t T, d *repb.Digest, uri string, qualifiers ...*assetpb.Qualifier) {
	t.Helper()
	resp, err := s.fetchBlob(ctx, &assetpb.FetchBlobRequest{Uris: []string{uri}, Qualifiers: qualifiers})
	if err != nil || resp.GetStatus().GetCode() != 0 || !proto.Equal(resp.BlobDigest, d) {
		t.Errorf("FetchBlob of %s %v: %v, %v, want %s", uri, qualifiers, resp, err, show(d))
	} else if resp.Uri != "" && resp.Uri != uri {
		t.Errorf("FetchBlob of %s says it used %s", uri, resp.Uri)
	}
}

// wantNoAsset fails unless the fetch is NOT_FOUND, in the call's status or in the response's.
func wantNoAsset(t T, resp interface{ GetBlobDigest() *repb.Digest }, code codes.Code, err error, what string) {
	t.Helper()
	if err != nil {
		wantCode(t, err, what, codes.NotFound)
	} else if code != codes.NotFound {
		t.Errorf("%s: got status %s and digest %s, want NotFound", what, code, show(resp.GetBlobDigest()))
	}
}

func (s *Subject) wantUnknown(ctx context.Context, t T, req *assetpb.FetchBlobRequest, what string) {
	t.Helper()
	resp, err := s.fetchBlob(ctx, req)
	wantNoAsset(t, resp, codes.Code(resp.GetStatus().GetCode()), err, what)
}

func checkFetchNoURI(ctx context.Context, t T, s *Subject) {
	_, err := s.Fetch.FetchBlob(ctx, &assetpb.FetchBlobRequest{InstanceName: s.Instance})
	wantCode(t, err, "FetchBlob without a URI", codes.InvalidArgument)
	_, err = s.Fetch.FetchDirectory(ctx, &assetpb.FetchDirectoryRequest{InstanceName: s.Instance})
	wantCode(t, err, "FetchDirectory without a URI", codes.InvalidArgument)
}

func checkPushNoURI(ctx context.Context, t T, s *Subject) {
	_, err := s.Push.PushBlob(ctx, &assetpb.PushBlobRequest{InstanceName: s.Instance, BlobDigest: s.Empty()})
	wantCode(t, err, "PushBlob without a URI", codes.InvalidArgument)
	_, err = s.Push.PushDirectory(ctx, &assetpb.PushDirectoryRequest{InstanceName: s.Instance, RootDirectoryDigest: s.Empty()})
	wantCode(t, err, "PushDirectory without a URI", codes.InvalidArgument)
}

func checkUnknownQualifier(ctx context.Context, t T, s *Subject) {
	_, err := s.fetchBlob(ctx, &assetpb.FetchBlobRequest{
		Uris: []string{urn()}, Qualifiers: []*assetpb.Qualifier{{Name: "conformance-unheard-of", Value: "1"}},
	})
	if !wantCode(t, err, "FetchBlob with an unknown qualifier", codes.InvalidArgument) {
		return
	}
	for _, d := range status.Convert(err).Details() {
		bad, _ := d.(*errdetails.BadRequest)
		for _, v := range bad.GetFieldViolations() {
			if v.Field == "qualifiers.name" && strings.Contains(v.Description, "conformance-unheard-of") {
				return
			}
		}
	}
	t.Errorf("FetchBlob with an unknown qualifier: the details %v have no violation of qualifiers.name that names it", status.Convert(err).Details())
}

func checkStandardQualifiers(ctx context.Context, t T, s *Subject) {
	uri := urn()
	blobs := [][]byte{s.Blob(100), s.Blob(100)}
	ds := s.Put(ctx, t, blobs...)
	qualifiers := func(i int) []*assetpb.Qualifier {
		return []*assetpb.Qualifier{
			{Name: "resource_type", Value: "application/x-git"}, {Name: "vcs.branch", Value: "main"},
			{Name: "vcs.commit", Value: strings.Repeat("ab"[i:i+1], 40)}, {Name: "directory", Value: "sub/dir"},
		}
	}
	for i, d := range ds {
		s.pushBlob(ctx, t, &assetpb.PushBlobRequest{Uris: []string{uri}, Qualifiers: qualifiers(i), BlobDigest: d})
	}
	for i, d := range ds {
		q := qualifiers(i)
		q[0], q[3] = q[3], q[0]
		s.wantAsset(ctx, t, d, uri, q...)
	}
	other := qualifiers(0)
	other[2].Value = strings.Repeat("c", 40)
	s.wantUnknown(ctx, t, &assetpb.FetchBlobRequest{Uris: []string{uri}, Qualifiers: other}, "FetchBlob with another vcs.commit")
	sum := []*assetpb.Qualifier{{Name: "checksum.sri", Value: sri(blobs[0])}}
	s.pushBlob(ctx, t, &assetpb.PushBlobRequest{Uris: []string{uri}, Qualifiers: sum, BlobDigest: ds[0]})
	s.wantAsset(ctx, t, ds[0], uri, sum...)
}

// sri is a checksum in the form of Subresource Integrity.
func sri(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func checkFetchUnknown(ctx context.Context, t T, s *Subject) {
	s.wantUnknown(ctx, t, &assetpb.FetchBlobRequest{Uris: []string{urn()}}, "FetchBlob of an unknown URN")
	resp, err := s.Fetch.FetchDirectory(ctx, &assetpb.FetchDirectoryRequest{InstanceName: s.Instance, Uris: []string{urn()}})
	if err != nil {
		wantCode(t, err, "FetchDirectory of an unknown URN", codes.NotFound)
	} else {
		wantStatus(t, resp.Status, "FetchDirectory of an unknown URN", codes.NotFound)
	}
}

func checkPushBlob(ctx context.Context, t T, s *Subject) {
	data := s.Blob(1000)
	d := s.Put(ctx, t, data)[0]
	uris := []string{urn(), urn(), "https://example.invalid/" + newUUID() + ".tar.gz"}
	s.pushBlob(ctx, t, &assetpb.PushBlobRequest{Uris: uris, BlobDigest: d})
	for _, uri := range uris {
		s.wantAsset(ctx, t, d, uri)
	}
	resp, err := s.fetchBlob(ctx, &assetpb.FetchBlobRequest{Uris: []string{urn(), uris[1]}})
	if err != nil || !proto.Equal(resp.BlobDigest, d) || resp.Uri != uris[1] {
		t.Errorf("FetchBlob of an unknown URI and %s: %v, %v", uris[1], resp, err)
	}
	s.WantReadable(ctx, t, data)
}

func checkPushDirectory(ctx context.Context, t T, s *Subject) {
	uri := urn()
	root := s.putTree(ctx, t, s.sampleTree(t, 0, 0))
	blob := s.Put(ctx, t, s.Blob(50))[0]
	root = s.PutMessage(ctx, t, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: blob}}, Directories: []*repb.DirectoryNode{{Name: "d", Digest: root}}})
	_, err := s.Push.PushDirectory(ctx, &assetpb.PushDirectoryRequest{
		InstanceName: s.Instance, Uris: []string{uri}, RootDirectoryDigest: root, DigestFunction: s.Function.Proto(),
	})
	if err != nil {
		t.Fatalf("PushDirectory: %v", err)
	}
	resp, err := s.Fetch.FetchDirectory(ctx, &assetpb.FetchDirectoryRequest{
		InstanceName: s.Instance, Uris: []string{uri}, DigestFunction: s.Function.Proto(),
	})
	if err != nil || resp.GetStatus().GetCode() != 0 || !proto.Equal(resp.RootDirectoryDigest, root) {
		t.Errorf("FetchDirectory of a pushed directory: %v, %v, want %s", resp, err, show(root))
	}
	s.wantUnknown(ctx, t, &assetpb.FetchBlobRequest{Uris: []string{uri}}, "FetchBlob of what was pushed as a directory")
}

func checkPushAgain(ctx context.Context, t T, s *Subject) {
	uri := urn()
	for _, d := range s.Put(ctx, t, s.Blob(10), s.Blob(10)) {
		s.pushBlob(ctx, t, &assetpb.PushBlobRequest{Uris: []string{uri}, BlobDigest: d})
		s.wantAsset(ctx, t, d, uri)
	}
}

func checkExpire(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(10))[0]
	past, future := urn(), urn()
	s.pushBlob(ctx, t, &assetpb.PushBlobRequest{Uris: []string{future}, BlobDigest: d, ExpireAt: timestamppb.New(time.Now().Add(time.Hour))})
	s.wantAsset(ctx, t, d, future)
	_, err := s.Push.PushBlob(ctx, &assetpb.PushBlobRequest{
		InstanceName: s.Instance, Uris: []string{past}, BlobDigest: d, DigestFunction: s.Function.Proto(), ExpireAt: timestamppb.New(time.Now().Add(-time.Hour)),
	})
	if err != nil {
		wantCode(t, err, "PushBlob of what expired an hour ago", codes.InvalidArgument)
	}
	s.wantUnknown(ctx, t, &assetpb.FetchBlobRequest{Uris: []string{past}}, "FetchBlob of what expired an hour ago")
}

func checkOldest(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(10))[0]
	uri := urn()
	s.pushBlob(ctx, t, &assetpb.PushBlobRequest{Uris: []string{uri}, BlobDigest: d})
	young := &assetpb.FetchBlobRequest{Uris: []string{uri}, OldestContentAccepted: timestamppb.New(time.Now().Add(-time.Hour))}
	if resp, err := s.fetchBlob(ctx, young); err != nil || !proto.Equal(resp.BlobDigest, d) {
		t.Errorf("FetchBlob of what is younger than oldest_content_accepted: %v, %v", resp, err)
	}
	s.wantUnknown(ctx, t, &assetpb.FetchBlobRequest{Uris: []string{uri}, OldestContentAccepted: timestamppb.New(time.Now().Add(time.Hour))},
		"FetchBlob of what is older than oldest_content_accepted")
}

func checkReferences(ctx context.Context, t T, s *Subject) {
	data := s.Blob(100)
	ds := s.Put(ctx, t, s.Blob(10), data)
	dir := s.PutMessage(ctx, t, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: ds[1]}}})
	uri := urn()
	s.pushBlob(ctx, t, &assetpb.PushBlobRequest{
		Uris: []string{uri}, BlobDigest: ds[0], ReferencesBlobs: []*repb.Digest{ds[1]}, ReferencesDirectories: []*repb.Digest{dir},
	})
	s.wantAsset(ctx, t, ds[0], uri)
	s.WantReadable(ctx, t, data)
	if missing := s.Missing(ctx, t, dir); len(missing) != 0 {
		t.Errorf("a referenced directory is missing after the asset was fetched")
	}
}

func checkAssetFunctions(ctx context.Context, t T, s *Subject) {
	for _, f := range s.Functions() {
		s := s.With(f)
		uri := urn()
		d := s.Put(ctx, t, s.Blob(10))[0]
		s.pushBlob(ctx, t, &assetpb.PushBlobRequest{Uris: []string{uri}, BlobDigest: d})
		s.wantAsset(ctx, t, d, uri)
		resp, err := s.fetchBlob(ctx, &assetpb.FetchBlobRequest{Uris: []string{uri}})
		if err == nil && resp.DigestFunction != f.Proto() && (f != SHA256 || resp.DigestFunction != repb.DigestFunction_UNKNOWN) {
			t.Errorf("FetchBlob in %s says the digest is in %s", f, resp.DigestFunction)
		}
	}
}

// origin serves pages by path on the loopback interface and counts the requests.
type origin struct {
	url   string
	hits  atomic.Int64
	serve *http.Server
}

func newOrigin(t T, pages map[string][]byte) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen on loopback: %v", err)
	}
	o := &origin{url: "http://" + l.Addr().String()}
	o.serve = &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.hits.Add(1)
		page, found := pages[r.URL.Path]
		switch {
		case r.URL.Path == "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case !found:
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write(page) // a client that hung up is its own business
		}
	})}
	go func() { _ = o.serve.Serve(l) }() // ends when the check closes the origin
	return o
}

func (o *origin) close() { _ = o.serve.Close() }

// reached skips the check unless the server asked the origin for something.
func (o *origin) reached(t T, resp *assetpb.FetchBlobResponse, err error) {
	t.Helper()
	if o.hits.Load() == 0 {
		t.Skipf("the server did not ask %s: it fetches nothing, not from there, or runs where that is another machine (it said %v, %v)", o.url, resp.GetStatus(), err)
	}
}

func checkFetchHTTP(ctx context.Context, t T, s *Subject) {
	data := s.Blob(300_000)
	o := newOrigin(t, map[string][]byte{"/a": data})
	defer o.close()
	resp, err := s.fetchBlob(ctx, &assetpb.FetchBlobRequest{Uris: []string{o.url + "/absent", o.url + "/a"}})
	o.reached(t, resp, err)
	if err != nil || resp.GetStatus().GetCode() != 0 || !proto.Equal(resp.BlobDigest, s.Digest(data)) {
		t.Fatalf("FetchBlob of an http URI: %v, %v, want %s", resp, err, show(s.Digest(data)))
	}
	s.WantReadable(ctx, t, data)
}

func checkFetchChecksum(ctx context.Context, t T, s *Subject) {
	data := s.Blob(1000)
	o := newOrigin(t, map[string][]byte{"/a": data, "/b": data})
	defer o.close()
	good := []*assetpb.Qualifier{{Name: "checksum.sri", Value: sri(data)}}
	bad := []*assetpb.Qualifier{{Name: "checksum.sri", Value: sri(s.Blob(5))}}
	resp, err := s.fetchBlob(ctx, &assetpb.FetchBlobRequest{Uris: []string{o.url + "/b"}, Qualifiers: bad})
	o.reached(t, resp, err)
	if err != nil || resp.GetStatus().GetCode() == 0 {
		t.Errorf("FetchBlob of content that does not match checksum.sri: %v, %v, want an error in response.status", resp, err)
	}
	s.wantAsset(ctx, t, s.Digest(data), o.url+"/a", good...)
}

func checkFetchUpstream(ctx context.Context, t T, s *Subject) {
	o := newOrigin(t, nil)
	defer o.close()
	gone := newOrigin(t, nil)
	gone.close()
	for what, uri := range map[string]string{"404": o.url + "/absent", "500": o.url + "/broken"} {
		resp, err := s.fetchBlob(ctx, &assetpb.FetchBlobRequest{Uris: []string{uri}})
		o.reached(t, resp, err)
		if err != nil || resp.GetStatus().GetCode() == 0 {
			t.Errorf("FetchBlob of a page that is %s: %v, %v, want an error in response.status", what, resp, err)
		}
	}
	resp, err := s.fetchBlob(ctx, &assetpb.FetchBlobRequest{Uris: []string{gone.url + "/x"}})
	if err != nil || resp.GetStatus().GetCode() == 0 {
		t.Errorf("FetchBlob from an origin that is not there: %v, %v, want an error in response.status", resp, err)
	}
}
