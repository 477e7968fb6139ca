package asset

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Mirrors are asked in the order they are given, the next one only when the one before did not deliver what the checksum
// says.
func TestMirrorsInOrder(t *testing.T) {
	e := startDownloads(t, nil)
	whole := func(w http.ResponseWriter, _ *http.Request) { w.Write(page) }
	gone, good, spare := serve(t, http.NotFound), serve(t, whole), serve(t, whole)
	poisoned := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("poison")) })
	checksum := []*rapb.Qualifier{qualifier("checksum.sri", sha256SRI(page))}

	r := e.download(t, &rapb.FetchBlobRequest{Uris: []string{gone.URL, poisoned.URL, good.URL, spare.URL}, Qualifiers: checksum})
	if !proto.Equal(r.BlobDigest, digest.SHA256.Of(page).Proto()) || r.Uri != good.URL {
		t.Errorf("it came from %s, not from %s: %v", r.Uri, good.URL, r)
	}
	for name, c := range map[string]struct {
		mirror *site
		want   int64
	}{"gone": {gone, 1}, "poisoned": {poisoned, 1}, "good": {good, 1}, "after the good one": {spare, 0}} {
		if n := int64(c.mirror.requests.Load()); n != c.want {
			t.Errorf("the mirror %s was asked %d times, want %d", name, n, c.want)
		}
	}
	// What a poisoned mirror gave is remembered under no name and kept nowhere.
	if e.blobs.Contains(digest.SHA256.Of([]byte("poison"))) {
		t.Error("the poisoned content is in the store")
	}
	r, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{gone.URL, poisoned.URL}, Qualifiers: checksum})
	if err != nil || codes.Code(r.Status.GetCode()) != codes.Aborted || r.Uri != poisoned.URL || !strings.Contains(r.Status.GetMessage(), "checksum") {
		t.Errorf("no mirror has it: %v, %v; want the failure of the last one", r, err)
	}
}

// A call that asks for no timeout, and one that asks for too long a one, end at the node's own limits.
func TestTimeLimits(t *testing.T) {
	never := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, c := range map[string]struct {
		limits func(*Options)
		asked  *durationpb.Duration
	}{
		"none asked for":     {func(o *Options) { o.Timeout = 50 * time.Millisecond }, nil},
		"zero":               {func(o *Options) { o.Timeout = 50 * time.Millisecond }, durationpb.New(0)},
		"longer than is let": {func(o *Options) { o.MaxTimeout = 50 * time.Millisecond }, durationpb.New(24 * time.Hour)},
	} {
		e := startDownloads(t, c.limits)
		origin := serve(t, never)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		r, err := e.fetch.FetchBlob(ctx, &rapb.FetchBlobRequest{Uris: []string{origin.URL}, Timeout: c.asked})
		cancel()
		if err != nil || codes.Code(r.Status.GetCode()) != codes.DeadlineExceeded {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}
