package asset

import (
	"fmt"
	"strings"
	"testing"
	"time"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// What BuildStream's buildbox-casd does with artifacts and sources, in its order.
func TestBuildStream(t *testing.T) {
	e := startDownloads(t, nil)
	ctx := t.Context()
	_, err := e.fetch.FetchBlob(ctx, &rapb.FetchBlobRequest{})
	wantCode(t, "probe of Fetch", err, codes.InvalidArgument)
	_, err = e.push.PushBlob(ctx, &rapb.PushBlobRequest{})
	wantCode(t, "probe of Push", err, codes.InvalidArgument)

	const strong, weak = "urn:fdc:buildstream.build:2020:artifact:p/e.bst/strong", "urn:fdc:buildstream.build:2020:artifact:p/e.bst/weak"
	const sourceURI = "urn:fdc:buildstream.build:2020:source:local/abc"
	_, err = e.fetch.FetchBlob(ctx, &rapb.FetchBlobRequest{InstanceName: "bst", Uris: []string{strong}})
	wantCode(t, "artifact nobody pushed", err, codes.NotFound)
	_, err = e.fetch.FetchDirectory(ctx, &rapb.FetchDirectoryRequest{InstanceName: "bst", Uris: []string{sourceURI}})
	wantCode(t, "source nobody pushed", err, codes.NotFound)

	leaf := e.message(t, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: e.store(t, digest.SHA256, []byte("f"))}}})
	files := e.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "d", Digest: leaf}}})
	push := &rapb.PushBlobRequest{
		InstanceName: "bst", Uris: []string{strong, weak}, BlobDigest: e.store(t, digest.SHA256, []byte("artifact")),
		ReferencesBlobs: []*repb.Digest{e.store(t, digest.SHA256, []byte("log"))}, ReferencesDirectories: []*repb.Digest{files},
	}
	if _, err := e.push.PushBlob(ctx, push); err != nil {
		t.Fatal(err)
	}
	if _, err := e.push.PushDirectory(ctx, &rapb.PushDirectoryRequest{InstanceName: "bst", Uris: []string{sourceURI}, RootDirectoryDigest: files}); err != nil {
		t.Fatal(err)
	}
	for _, uri := range push.Uris {
		r, err := e.fetch.FetchBlob(ctx, &rapb.FetchBlobRequest{InstanceName: "bst", Uris: []string{uri}})
		if err != nil || !proto.Equal(r.BlobDigest, push.BlobDigest) || r.Uri != uri || r.Status.GetCode() != 0 ||
			r.DigestFunction != repb.DigestFunction_SHA256 || r.ExpiresAt != nil {
			t.Errorf("%s: %v, %v", uri, r, err)
		}
	}
	r, err := e.fetch.FetchDirectory(ctx, &rapb.FetchDirectoryRequest{InstanceName: "bst", Uris: []string{sourceURI}})
	if err != nil || !proto.Equal(r.RootDirectoryDigest, files) || r.Uri != sourceURI {
		t.Errorf("source: %v, %v", r, err)
	}
	lost, err := digest.FromProto(digest.SHA256, leaf)
	if err != nil {
		t.Fatal(err)
	}
	e.blobs.Lose(lost)
	_, err = e.fetch.FetchBlob(ctx, &rapb.FetchBlobRequest{Uris: []string{strong}})
	wantCode(t, "artifact whose files are incomplete", err, codes.NotFound)
	_, err = e.fetch.FetchDirectory(ctx, &rapb.FetchDirectoryRequest{Uris: []string{sourceURI}})
	wantCode(t, "source that is incomplete", err, codes.NotFound)

	push.ReferencesBlobs = append(push.ReferencesBlobs, digest.SHA256.Of([]byte("lost log")).Proto())
	_, err = e.push.PushBlob(ctx, push)
	wantCode(t, "push without content", err, codes.FailedPrecondition)
	var subjects []string
	for _, d := range status.Convert(err).Details() {
		for _, v := range d.(*errdetails.PreconditionFailure).GetViolations() {
			subjects = append(subjects, v.Subject)
		}
	}
	if want := "blobs/" + lost.String(); len(subjects) != 2 || subjects[0] != want {
		t.Errorf("missing %v, want %s and the log", subjects, want)
	}
}

func TestFetchRefuses(t *testing.T) {
	e := startDownloads(t, nil)
	uris := []string{"urn:x"}
	for name, q := range map[string]*rapb.FetchBlobRequest{
		"no URI":                {},
		"empty URI":             {Uris: []string{"urn:x", ""}},
		"long URI":              {Uris: []string{strings.Repeat("u", 9<<10)}},
		"many URIs":             {Uris: strings.Split(strings.Repeat("u,", 99)+"u", ",")},
		"instance name":         {InstanceName: "a/blobs", Uris: uris},
		"digest function":       {Uris: uris, DigestFunction: repb.DigestFunction_MD5},
		"negative timeout":      {Uris: uris, Timeout: durationpb.New(-time.Second)},
		"timeout out of range":  {Uris: uris, Timeout: &durationpb.Duration{Seconds: 1 << 62}},
		"oldest out of range":   {Uris: uris, OldestContentAccepted: &timestamppb.Timestamp{Nanos: -1}},
		"qualifier twice":       {Uris: uris, Qualifiers: []*rapb.Qualifier{qualifier("vcs.branch", "a"), qualifier("vcs.branch", "b")}},
		"checksum":              {Uris: uris, Qualifiers: []*rapb.Qualifier{qualifier("checksum.sri", "sha256-abc")}},
		"header name":           {Uris: uris, Qualifiers: []*rapb.Qualifier{qualifier("http_header:a b", "x")}},
		"header value":          {Uris: uris, Qualifiers: []*rapb.Qualifier{qualifier("http_header:A", "x\r\ny")}},
		"header of no URI":      {Uris: uris, Qualifiers: []*rapb.Qualifier{qualifier("http_header_url:1:A", "x")}},
		"header without a URI":  {Uris: uris, Qualifiers: []*rapb.Qualifier{qualifier("http_header_url:A", "x")}},
		"header that is ours":   {Uris: uris, Qualifiers: []*rapb.Qualifier{qualifier("http_header:host", "x")}},
		"huge headers":          {Uris: uris, Qualifiers: []*rapb.Qualifier{qualifier("http_header:A", strings.Repeat("x", maxHeaderBytes+1))}},
		"many qualifiers":       {Uris: uris, Qualifiers: make([]*rapb.Qualifier, maxQualifiers+1)},
		"branch for a web page": {Uris: []string{"http://127.0.0.1/"}, Qualifiers: []*rapb.Qualifier{qualifier("vcs.branch", "a")}},
	} {
		for i := range q.Qualifiers {
			if q.Qualifiers[i] == nil {
				q.Qualifiers[i] = qualifier(fmt.Sprint("http_header:H", i), "x")
			}
		}
		_, err := e.fetch.FetchBlob(t.Context(), q)
		wantCode(t, name, err, codes.InvalidArgument)
		if len(status.Convert(err).Details()) != 1 {
			t.Errorf("%s: no detail tells the field: %v", name, err)
		}
		if name == "branch for a web page" {
			continue // directories are not downloaded
		}
		_, err = e.fetch.FetchDirectory(t.Context(), &rapb.FetchDirectoryRequest{
			InstanceName: q.InstanceName, Uris: q.Uris, DigestFunction: q.DigestFunction, Timeout: q.Timeout,
			OldestContentAccepted: q.OldestContentAccepted, Qualifiers: q.Qualifiers,
		})
		wantCode(t, name+" of a directory", err, codes.InvalidArgument)
	}
}

func TestUnsupportedQualifiers(t *testing.T) {
	e := start(t, Options{})
	_, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{
		Uris: []string{"urn:x"}, Qualifiers: []*rapb.Qualifier{qualifier("colour", "red"), qualifier("vcs.commit", "1"), qualifier("", "")},
	})
	wantCode(t, "unknown qualifiers", err, codes.InvalidArgument)
	var told []string
	for _, d := range status.Convert(err).Details() {
		for _, v := range d.(*errdetails.BadRequest).GetFieldViolations() {
			told = append(told, v.Field+": "+v.Description)
		}
	}
	if got := strings.Join(told, "\n"); got != "qualifiers.name: \"colour\" not supported\nqualifiers.name: \"\" not supported" {
		t.Errorf("violations:\n%s", got)
	}
	_, err = e.push.PushBlob(t.Context(), &rapb.PushBlobRequest{Uris: []string{"urn:x"}, Qualifiers: []*rapb.Qualifier{qualifier("colour", "red")}})
	wantCode(t, "unknown qualifier of a push", err, codes.InvalidArgument)
}

func TestPushRefuses(t *testing.T) {
	e := start(t, Options{})
	good, bad := e.store(t, digest.SHA256, []byte("x")), &repb.Digest{Hash: "x"}
	uris := []string{"urn:x"}
	for name, q := range map[string]*rapb.PushBlobRequest{
		"no URI":           {BlobDigest: good},
		"no digest":        {Uris: uris},
		"digest":           {Uris: uris, BlobDigest: bad},
		"reference":        {Uris: uris, BlobDigest: good, ReferencesBlobs: []*repb.Digest{bad}},
		"directory":        {Uris: uris, BlobDigest: good, ReferencesDirectories: []*repb.Digest{bad}},
		"digest function":  {Uris: uris, BlobDigest: good, DigestFunction: repb.DigestFunction_SHA1},
		"expiry":           {Uris: uris, BlobDigest: good, ExpireAt: &timestamppb.Timestamp{Nanos: -1}},
		"not a directory":  {Uris: uris, BlobDigest: good, ReferencesDirectories: []*repb.Digest{good}},
		"too much to keep": {Uris: uris, BlobDigest: good, Qualifiers: []*rapb.Qualifier{qualifier("directory", strings.Repeat("d", 3<<20))}},
	} {
		_, err := e.push.PushBlob(t.Context(), q)
		wantCode(t, name, err, codes.InvalidArgument)
		_, err = e.push.PushDirectory(t.Context(), &rapb.PushDirectoryRequest{
			Uris: q.Uris, RootDirectoryDigest: q.BlobDigest, ReferencesBlobs: q.ReferencesBlobs, ExpireAt: q.ExpireAt,
			ReferencesDirectories: q.ReferencesDirectories, DigestFunction: q.DigestFunction, Qualifiers: q.Qualifiers,
		})
		wantCode(t, name+" of a directory", err, codes.InvalidArgument)
	}
}

func TestTimesAndQualifiersOfPushes(t *testing.T) {
	e := start(t, Options{})
	ctx := t.Context()
	d := e.store(t, digest.BLAKE3, []byte("x"))
	expires := timestamppb.New(time.Now().Add(time.Hour))
	pushed := time.Now()
	_, err := e.push.PushBlob(ctx, &rapb.PushBlobRequest{
		Uris: []string{"urn:x"}, BlobDigest: d, DigestFunction: repb.DigestFunction_BLAKE3, ExpireAt: expires,
		Qualifiers: []*rapb.Qualifier{qualifier("vcs.commit", "1"), qualifier("resource_type", "text/plain")},
	})
	if err != nil {
		t.Fatal(err)
	}
	query := func(change func(q *rapb.FetchBlobRequest)) (*rapb.FetchBlobResponse, error) {
		q := &rapb.FetchBlobRequest{
			Uris: []string{"urn:unknown", "urn:x"}, DigestFunction: repb.DigestFunction_BLAKE3,
			Qualifiers: []*rapb.Qualifier{qualifier("resource_type", "text/plain"), qualifier("vcs.commit", "1")},
		}
		if change != nil {
			change(q)
		}
		return e.fetch.FetchBlob(ctx, q)
	}
	r, err := query(func(q *rapb.FetchBlobRequest) { q.OldestContentAccepted = timestamppb.New(pushed.Add(-time.Second)) })
	if err != nil || !proto.Equal(r.BlobDigest, d) || r.Uri != "urn:x" || !proto.Equal(r.ExpiresAt, expires) || r.DigestFunction != repb.DigestFunction_BLAKE3 {
		t.Errorf("%v, %v", r, err)
	}
	for name, change := range map[string]func(q *rapb.FetchBlobRequest){
		"younger than it is": func(q *rapb.FetchBlobRequest) { q.OldestContentAccepted = timestamppb.New(time.Now().Add(time.Hour)) },
		"another commit":     func(q *rapb.FetchBlobRequest) { q.Qualifiers[1].Value = "2" },
		"another function":   func(q *rapb.FetchBlobRequest) { q.DigestFunction = 0 },
	} {
		_, err := query(change)
		wantCode(t, name, err, codes.NotFound)
	}
	// A later request can alter the expiry, to the past as well.
	_, err = e.push.PushBlob(ctx, &rapb.PushBlobRequest{
		Uris: []string{"urn:x"}, BlobDigest: d, DigestFunction: repb.DigestFunction_BLAKE3, ExpireAt: timestamppb.New(pushed),
		Qualifiers: []*rapb.Qualifier{qualifier("vcs.commit", "1"), qualifier("resource_type", "text/plain")},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = query(nil)
	wantCode(t, "expired", err, codes.NotFound)
}
