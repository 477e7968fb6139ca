package asset

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// fakeOrigin owns what begins with "own:" and has what known says.
type fakeOrigin struct {
	known map[string]digest.Digest
	asked []string
}

func (f *fakeOrigin) Owns(uri string) bool {
	return strings.HasPrefix(uri, "own:") || strings.HasPrefix(uri, "https://own.invalid/")
}

func (f *fakeOrigin) Blob(_ context.Context, _ digest.Function, uri string) (digest.Digest, error) {
	f.asked = append(f.asked, uri)
	if d, found := f.known[uri]; found {
		return d, nil
	}
	return digest.Digest{}, fmt.Errorf("%s was never made: %w", uri, index.ErrNotFound)
}

func (f *fakeOrigin) Directory(ctx context.Context, fn digest.Function, uri string) (digest.Digest, error) {
	return f.Blob(ctx, fn, uri)
}

// sriOf is the checksum of content.
func sriOf(algorithm string, content []byte) string {
	h := newHash(algorithm)
	h.Write(content)
	return sri(algorithm, h.Sum(nil))
}

// What Bazel asks with for an archive of the node's own.
func TestOwnURIs(t *testing.T) {
	origin := &fakeOrigin{known: map[string]digest.Digest{}}
	e := startDownloads(t, func(o *Options) { o.Origin = origin })
	want := e.store(t, digest.SHA256, []byte("tar"))
	origin.known["https://own.invalid/a"] = digest.SHA256.Of([]byte("tar"))
	origin.known["own:dir"] = digest.SHA256.Of([]byte("tar"))
	future := timestamppb.New(time.Now().Add(time.Hour))
	bazel := []*rapb.Qualifier{qualifier("bazel.canonical_id", "x y"), qualifier("http_header:Accept", "*/*"), qualifier("http_header_url:0:X-A", "b")}

	r := e.download(t, &rapb.FetchBlobRequest{Uris: []string{"own:gone", "https://own.invalid/a"}, Qualifiers: bazel, OldestContentAccepted: future})
	if !proto.Equal(r.BlobDigest, want) || r.Uri != "https://own.invalid/a" || fmt.Sprint(origin.asked) != "[own:gone https://own.invalid/a]" {
		t.Errorf("%v after %v", r, origin.asked)
	}
	right, wrong := qualifier("checksum.sri", sriOf("sha256", []byte("tar"))), qualifier("checksum.sri", sriOf("sha256", []byte("rat")))
	e.download(t, &rapb.FetchBlobRequest{Uris: []string{"https://own.invalid/a"}, Qualifiers: append(bazel, right)})
	_, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{"https://own.invalid/a"}, Qualifiers: append(bazel, wrong)})
	wantCode(t, "another checksum", err, codes.InvalidArgument)
	if !strings.Contains(err.Error(), "sha256/"+want.Hash) {
		t.Errorf("another checksum: it does not say what the content is: %v", err)
	}
	_, err = e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{"https://own.invalid/b"}})
	wantCode(t, "what it does not have", err, codes.NotFound)
	if !strings.Contains(err.Error(), "was never made") {
		t.Errorf("the origin's words are lost: %v", err)
	}
	_, err = e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{"https://own.invalid/a"}, Qualifiers: []*rapb.Qualifier{qualifier("vcs.commit", "1")}})
	wantCode(t, "a qualifier it cannot satisfy", err, codes.InvalidArgument)
	d, err := e.fetch.FetchDirectory(t.Context(), &rapb.FetchDirectoryRequest{Uris: []string{"own:dir"}})
	if err != nil || !proto.Equal(d.RootDirectoryDigest, want) || d.Uri != "own:dir" {
		t.Errorf("%v, %v", d, err)
	}
	_, err = e.fetch.FetchDirectory(t.Context(), &rapb.FetchDirectoryRequest{Uris: []string{"own:none"}})
	wantCode(t, "a directory it does not have", err, codes.NotFound)
}

func TestMirrorAfterOwnURI(t *testing.T) {
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	e := startDownloads(t, func(o *Options) { o.Origin = &fakeOrigin{} })
	r := e.download(t, &rapb.FetchBlobRequest{Uris: []string{"https://own.invalid/a", origin.URL}})
	if r.Uri != origin.URL {
		t.Errorf("it came from %q", r.Uri)
	}
}

func TestPushUnderOwnURI(t *testing.T) {
	e := start(t, Options{Origin: &fakeOrigin{}})
	d := e.store(t, digest.SHA256, nil)
	_, err := e.push.PushBlob(t.Context(), &rapb.PushBlobRequest{Uris: []string{"urn:x", "own:x"}, BlobDigest: d})
	wantCode(t, "blob", err, codes.InvalidArgument)
	_, err = e.push.PushDirectory(t.Context(), &rapb.PushDirectoryRequest{Uris: []string{"own:x"}, RootDirectoryDigest: d})
	wantCode(t, "directory", err, codes.InvalidArgument)
	_, err = e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{"urn:x"}})
	wantCode(t, "half of a push that was refused", err, codes.NotFound)
}

// A client cannot make others take content for verified that is not.
func TestPushOfPoisonedChecksum(t *testing.T) {
	e := start(t, Options{})
	for _, fn := range digest.Functions() {
		good := e.store(t, fn, []byte("good"))
		for _, algorithm := range []string{"sha256", "sha384", "sha512"} {
			checksum := qualifier("checksum.sri", sriOf(algorithm, []byte("good")))
			push := &rapb.PushBlobRequest{Uris: []string{"https://x/" + algorithm}, Qualifiers: []*rapb.Qualifier{checksum},
				BlobDigest: e.store(t, fn, []byte("evil")), DigestFunction: fn.Proto()}
			_, err := e.push.PushBlob(t.Context(), push)
			wantCode(t, algorithm+" of other content", err, codes.InvalidArgument)
			push.BlobDigest = good
			if _, err := e.push.PushBlob(t.Context(), push); err != nil {
				t.Error(err)
			}
			r := e.download(t, &rapb.FetchBlobRequest{Uris: push.Uris, Qualifiers: push.Qualifiers, DigestFunction: fn.Proto()})
			if !proto.Equal(r.BlobDigest, good) {
				t.Errorf("fetched %v", r)
			}
		}
	}
	checksum := qualifier("checksum.sri", sriOf("sha256", []byte("absent")))
	_, err := e.push.PushBlob(t.Context(), &rapb.PushBlobRequest{Uris: []string{"urn:x"}, Qualifiers: []*rapb.Qualifier{checksum},
		BlobDigest: digest.SHA256.Of([]byte("absent")).Proto()})
	wantCode(t, "absent content", err, codes.FailedPrecondition)
	_, err = e.push.PushDirectory(t.Context(), &rapb.PushDirectoryRequest{Uris: []string{"urn:x"}, Qualifiers: []*rapb.Qualifier{checksum},
		RootDirectoryDigest: e.message(t, &repb.Directory{})})
	wantCode(t, "checksum of a directory", err, codes.InvalidArgument)
}

func TestUnknownSchemeIsTold(t *testing.T) {
	e := startDownloads(t, nil)
	_, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{"ftp://127.0.0.1/x"}})
	wantCode(t, "unknown scheme", err, codes.NotFound)
	if !strings.Contains(err.Error(), "only http and https URIs are downloaded") {
		t.Errorf("it does not say why: %v", err)
	}
}
