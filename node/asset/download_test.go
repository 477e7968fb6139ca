package asset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

var page = bytes.Repeat([]byte("a source archive\n"), 10_000)

func sri(algorithm string, sum []byte) string {
	return algorithm + "-" + base64.StdEncoding.EncodeToString(sum)
}

func sha256SRI(content []byte) string {
	sum := sha256.Sum256(content)
	return sri("sha256", sum[:])
}

// What Bazel's remote downloader does: mirrors, a checksum, an id, headers; and again from memory.
func TestDownload(t *testing.T) {
	e := startDownloads(t, nil)
	var got http.Header
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.Write(page)
	})
	gone := serve(t, http.NotFound)
	q := &rapb.FetchBlobRequest{
		InstanceName: "bazel", Uris: []string{"urn:name-only", gone.URL + "/a.tar", origin.URL + "/a.tar"},
		Qualifiers: []*rapb.Qualifier{
			qualifier("checksum.sri", sha256SRI(page)), qualifier("bazel.canonical_id", "a-1.0"),
			qualifier("http_header:X-All", "everywhere"), qualifier("http_header_url:2:Authorization", "Bearer secret"),
			qualifier("http_header_url:1:X-Other", "not here"),
		},
	}
	r := e.download(t, q)
	want := digest.SHA256.Of(page)
	if !proto.Equal(r.BlobDigest, want.Proto()) || r.Uri != origin.URL+"/a.tar" {
		t.Errorf("%v", r)
	}
	if content, err := e.blobs.Get(t.Context(), want); err != nil || !bytes.Equal(content, page) {
		t.Errorf("not in the store: %v", err)
	}
	if got.Get("X-All") != "everywhere" || got.Get("Authorization") != "Bearer secret" || got.Get("X-Other") != "" || got.Get("Accept-Encoding") != "" {
		t.Errorf("headers %v", got)
	}
	if r := e.download(t, q); !proto.Equal(r.BlobDigest, want.Proto()) || origin.requests.Load() != 1 {
		t.Errorf("%v after %d requests", r, origin.requests.Load())
	}
	// With a checksum other headers, a new token say, are the same content; another id is not.
	q.Qualifiers[3].Value = "Bearer another"
	if e.download(t, q); origin.requests.Load() != 1 {
		t.Error("a new token made a new download")
	}
	q.Qualifiers[1].Value = "a-1.1"
	if e.download(t, q); origin.requests.Load() != 2 {
		t.Error("another canonical id made no new download")
	}
}

func TestDownloadByDigestFunction(t *testing.T) {
	e := startDownloads(t, nil)
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	for _, fn := range digest.Functions() {
		r := e.download(t, &rapb.FetchBlobRequest{Uris: []string{origin.URL}, DigestFunction: fn.Proto()})
		if !proto.Equal(r.BlobDigest, fn.Of(page).Proto()) || r.DigestFunction != fn.Proto() {
			t.Errorf("%s: %v", fn, r)
		}
	}
	empty := serve(t, func(http.ResponseWriter, *http.Request) {})
	if r := e.download(t, &rapb.FetchBlobRequest{Uris: []string{empty.URL}}); !proto.Equal(r.BlobDigest, digest.SHA256.Empty().Proto()) {
		t.Errorf("nothing: %v", r)
	}
}

// The age of content counts from when its retrieval began.
func TestAgeOfDownload(t *testing.T) {
	e := startDownloads(t, nil)
	var meanwhile time.Time
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		meanwhile = time.Now()
		w.Write(page)
	})
	q := &rapb.FetchBlobRequest{Uris: []string{origin.URL}}
	e.download(t, q)
	q.OldestContentAccepted = timestamppb.New(meanwhile)
	if e.download(t, q); origin.requests.Load() != 2 {
		t.Error("content whose retrieval had begun before was accepted")
	}
}

// Without a checksum Bazel asks with a time an hour ahead, meaning: fetch it again.
func TestDownloadAgain(t *testing.T) {
	e := startDownloads(t, nil)
	version := 0
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		version++
		fmt.Fprint(w, "version ", version)
	})
	ask := func(oldest *timestamppb.Timestamp) digest.Digest {
		t.Helper()
		r := e.download(t, &rapb.FetchBlobRequest{Uris: []string{origin.URL}, OldestContentAccepted: oldest})
		d, err := digest.FromProto(digest.SHA256, r.BlobDigest)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first, second, third := digest.SHA256.Of([]byte("version 1")), digest.SHA256.Of([]byte("version 2")), digest.SHA256.Of([]byte("version 3"))
	begun := time.Now()
	for i, c := range []struct {
		oldest *timestamppb.Timestamp
		want   digest.Digest
	}{
		{nil, first}, {nil, first}, {timestamppb.New(begun), first},
		{timestamppb.New(begun.Add(time.Hour)), second}, {nil, second},
		{timestamppb.New(begun.Add(time.Hour)), third},
	} {
		if got := ask(c.oldest); got != c.want {
			t.Errorf("call %d: %s, want %s", i, got, c.want)
		}
	}
	// Without a checksum a header may decide what is given.
	e.download(t, &rapb.FetchBlobRequest{Uris: []string{origin.URL}, Qualifiers: []*rapb.Qualifier{qualifier("http_header:Accept", "text/x")}})
	if version != 4 {
		t.Errorf("%d requests: another header was answered from memory", version)
	}
}

func TestChecksums(t *testing.T) {
	e := startDownloads(t, nil)
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	sum384, sum512 := sha512.Sum384(page), sha512.Sum512(page)
	wrong := sha256SRI([]byte("something else"))
	for name, c := range map[string]struct {
		value string
		code  codes.Code
	}{
		"sha256":                    {sha256SRI(page), codes.OK},
		"sha384":                    {sri("sha384", sum384[:]), codes.OK},
		"sha512":                    {sri("sha512", sum512[:]), codes.OK},
		"one of several":            {wrong + " \t" + sri("sha512", sum512[:]) + "?ct=x", codes.OK},
		"with one nobody knows":     {"md5-abc " + sha256SRI(page), codes.OK},
		"wrong":                     {wrong, codes.Aborted},
		"two that are wrong":        {wrong + " " + sri("sha384", make([]byte, 48)), codes.Aborted},
		"right sum, other function": {sri("sha384", append(sum512[:0:0], sum512[:48]...)), codes.Aborted},
	} {
		r, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{
			Uris: []string{origin.URL + "/" + fmt.Sprintf("%x", name)}, Qualifiers: []*rapb.Qualifier{qualifier("checksum.sri", c.value)},
		})
		if err != nil || codes.Code(r.Status.GetCode()) != c.code || (c.code == codes.OK) != (r.BlobDigest != nil) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

// failing is a web server that fails, or a URI that does, and the status it leads to.
type failing struct {
	handler http.HandlerFunc
	uri     string
	code    codes.Code
}

// answers are failures told by status and address.
func answers(dead string) map[string]failing {
	answer := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	redirectTo := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	return map[string]failing{
		"not found":               {answer(404), "", codes.NotFound},
		"gone":                    {answer(410), "", codes.NotFound},
		"forbidden":               {answer(403), "", codes.PermissionDenied},
		"unauthorized":            {answer(401), "", codes.PermissionDenied},
		"busy":                    {answer(429), "", codes.Unavailable},
		"broken":                  {answer(500), "", codes.Unavailable},
		"no content":              {answer(204), "", codes.Aborted},
		"teapot":                  {answer(418), "", codes.Aborted},
		"endless redirects":       {redirectTo("/again"), "", codes.Aborted},
		"redirect to a file":      {redirectTo("file:///etc/passwd"), "", codes.PermissionDenied},
		"redirect to a neighbour": {redirectTo("http://127.0.0.2:1/"), "", codes.PermissionDenied},
		"redirect to metadata":    {redirectTo("http://169.254.169.254/latest/"), "", codes.PermissionDenied},
		"neighbour":               {nil, "http://127.0.0.2:1/", codes.PermissionDenied},
		"IPv6 loopback":           {nil, "http://[::1]:1/", codes.PermissionDenied},
		"nobody listens":          {nil, dead, codes.Unavailable},
		"not a URL":               {nil, "http://[/", codes.NotFound},
		"no host":                 {nil, "http:///x", codes.NotFound},
	}
}

// bodies are failures of content that has more than 1,000 bytes, is cut off or never ends.
func bodies() map[string]failing {
	begin := func(w http.ResponseWriter, n int) {
		w.Write(make([]byte, n))
		w.(http.Flusher).Flush()
	}
	return map[string]failing{
		"announced as too large": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1001")
			w.Write(make([]byte, 1001))
		}, "", codes.ResourceExhausted},
		"turns out too large": {func(w http.ResponseWriter, _ *http.Request) {
			for range 20 {
				begin(w, 100)
			}
		}, "", codes.ResourceExhausted},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "500")
			begin(w, 400)
			panic(http.ErrAbortHandler)
		}, "", codes.Aborted},
		"cut off without a length": {func(w http.ResponseWriter, _ *http.Request) {
			begin(w, 400)
			panic(http.ErrAbortHandler)
		}, "", codes.Aborted},
		"hangs up":      {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "", codes.Unavailable},
		"never answers": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "", codes.DeadlineExceeded},
		"stops in the middle": {func(w http.ResponseWriter, r *http.Request) {
			begin(w, 10)
			<-r.Context().Done()
		}, "", codes.DeadlineExceeded},
	}
}

func TestUpstreamFailures(t *testing.T) {
	e := startDownloads(t, func(o *Options) { o.MaxBytes = 1000 })
	dead := serve(t, http.NotFound)
	dead.Close()
	all := answers(dead.URL)
	maps.Copy(all, bodies())
	for name, c := range all {
		uri := c.uri
		if c.handler != nil {
			uri = serve(t, c.handler).URL
		}
		r, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{"urn:x", uri}, Timeout: durationpb.New(2 * time.Second)})
		if err != nil || codes.Code(r.Status.GetCode()) != c.code || r.Uri != uri || r.BlobDigest != nil || r.Status.GetMessage() == "" {
			t.Errorf("%s: %v, %v, want %s", name, r, err, c.code)
		}
	}
	e.service.Close()
	left, err := os.ReadDir(e.service.options.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%d files left, %v", len(left), err)
	}
	if n := e.blobs.Stat().Blobs; n != 0 {
		t.Errorf("%d blobs of failed downloads", n)
	}
}

// The address counts, not the name it came from.
func TestNameOfForbiddenAddress(t *testing.T) {
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	_, port, err := net.SplitHostPort(origin.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, Options{Dir: t.TempDir()})
	for _, host := range []string{"localhost", "127.0.0.1", "[::ffff:127.0.0.1]"} {
		r, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{"http://" + host + ":" + port}})
		if err != nil || codes.Code(r.Status.GetCode()) != codes.PermissionDenied {
			t.Errorf("%s: %v, %v", host, r, err)
		}
	}
	if n := origin.requests.Load(); n != 0 {
		t.Errorf("%d requests came through", n)
	}
}

func TestHeadersStayWithTheirHost(t *testing.T) {
	e := startDownloads(t, nil)
	var seen http.Header
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		w.Write(page)
	})
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/same", http.StatusFound)
			return
		}
		if r.Header.Get("Private-Token") != "secret" {
			t.Errorf("the host itself got %v", r.Header)
		}
		http.Redirect(w, r, other.URL, http.StatusFound)
	})
	e.download(t, &rapb.FetchBlobRequest{Uris: []string{origin.URL}, Qualifiers: []*rapb.Qualifier{qualifier("http_header:Private-Token", "secret")}})
	if seen == nil || seen.Get("Private-Token") != "" {
		t.Errorf("another host got %v", seen)
	}
}

func TestRedirectRules(t *testing.T) {
	request := func(uri string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	secure := []*http.Request{request("https://a.example/")}
	if err := redirect(request("http://a.example/"), secure, nil, false); err == nil {
		t.Error("https became http without a checksum")
	}
	if err := redirect(request("http://a.example/"), secure, nil, true); err != nil {
		t.Errorf("with a checksum: %v", err)
	}
	headers := http.Header{"X-Token": {"secret"}}
	next := request("http://a.example/")
	next.Header.Set("X-Token", "secret")
	if err := redirect(next, secure, headers, true); err != nil || next.Header.Get("X-Token") != "" {
		t.Errorf("a secret over http: %v, %v", next.Header, err)
	}
}

func TestNothingIsDownloadedUnlessConfigured(t *testing.T) {
	e := start(t, Options{})
	_, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{"http://127.0.0.1/"}})
	wantCode(t, "http without a directory for downloads", err, codes.NotFound)
	e = startDownloads(t, nil)
	for _, uri := range []string{"urn:x", "file:///etc/passwd", "ftp://127.0.0.1/x", "http:x", "httpx://127.0.0.1", "mesh:bazel://x", "data:,x"} {
		_, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{uri}})
		wantCode(t, uri, err, codes.NotFound)
	}
}

// full is a blob store that takes nothing.
type full struct {
	Blobs
	err error
}

func (f full) PutFile(context.Context, digest.Function, string) (digest.Digest, error) {
	return digest.Digest{}, f.err
}

func TestOwnFailuresAreGRPCErrors(t *testing.T) {
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	ask := func(e *endpoint) (*rapb.FetchBlobResponse, error) {
		return e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{origin.URL}})
	}
	e := startDownloads(t, nil)
	e.service.flights.downloader.blobs = full{err: cas.ErrFull}
	_, err := ask(e)
	wantCode(t, "full store", err, codes.ResourceExhausted)
	e.service.flights.downloader.blobs = full{err: cas.ErrTooLarge}
	if r, err := ask(e); err != nil || codes.Code(r.Status.GetCode()) != codes.ResourceExhausted {
		t.Errorf("larger than the store takes: %v, %v", r, err)
	}
	e.service.flights.downloader.dir = "/nonexistent"
	_, err = ask(e)
	wantCode(t, "no place to write", err, codes.Internal)
	e.service.Close()
	_, err = ask(e)
	wantCode(t, "closed", err, codes.Unavailable)
}

func TestLeftoversAreRemoved(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/"+temporary+"1", page, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, Options{Dir: dir})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func want(uri string) wanted {
	return wanted{uri: uri, fn: digest.SHA256, qualifiers: &qualifiers{}, timeout: time.Minute}
}

func TestOneDownloadForAll(t *testing.T) {
	e := startDownloads(t, nil)
	release := make(chan struct{})
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.Write(page)
	})
	f := e.service.flights
	var all []*flight
	now := time.Now()
	join := func(w wanted, oldest time.Time) *flight {
		t.Helper()
		one, err := f.join(w, oldest)
		if err != nil {
			t.Fatal(err)
		}
		return one
	}
	for range 5 {
		all = append(all, join(want(origin.URL), time.Time{}))
	}
	all = append(all, join(want(origin.URL), now.Add(-time.Second)), join(want(origin.URL), now.Add(time.Hour)))
	for i, one := range all {
		if one != all[0] {
			t.Errorf("call %d began a download of its own", i)
		}
	}
	for name, change := range map[string]func(*wanted){
		"function": func(w *wanted) { w.fn = digest.BLAKE3 },
		"URI":      func(w *wanted) { w.uri += "/x" },
		"header":   func(w *wanted) { w.qualifiers = &qualifiers{headers: []header{{"A", "b", -1}}} },
	} {
		w := want(origin.URL)
		change(&w)
		if join(w, time.Time{}) == all[0] {
			t.Errorf("another %s shares the download", name)
		}
	}
	if join(want(origin.URL), time.Now()) == all[0] {
		t.Error("a download that began too early is shared")
	}
	close(release)
	f.going.Wait()
	if got, err := all[0].digest, all[0].err; err != nil || got != digest.SHA256.Of(page) {
		t.Errorf("%v, %v", got, err)
	}
	if len(f.byKey) != 0 || len(f.active) != 0 {
		t.Errorf("%d flights are left", len(f.byKey)+len(f.active))
	}
}

// A caller that leaves does not end the download: the next one finds it done.
func TestDownloadOutlivesItsCaller(t *testing.T) {
	e := startDownloads(t, nil)
	release, begun := make(chan struct{}), make(chan struct{})
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-release
		w.Write(page)
	})
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	gone, leave := context.WithCancel(t.Context())
	leave()
	q := &rapb.FetchBlobRequest{Uris: []string{origin.URL}}
	go func() {
		_, err := e.fetch.FetchBlob(ctx, q)
		left <- err
	}()
	<-begun
	cancel()
	wantCode(t, "caller that left", <-left, codes.Canceled)
	if _, err := e.service.flights.fetch(gone, want(origin.URL), time.Time{}); !errors.Is(err, context.Canceled) {
		t.Errorf("caller that has left is kept waiting: %v", err)
	}
	// One with less patience than the download is told so.
	r, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: q.Uris, Timeout: durationpb.New(time.Millisecond)})
	if err != nil || codes.Code(r.Status.GetCode()) != codes.DeadlineExceeded {
		t.Errorf("impatient caller: %v, %v", r, err)
	}
	close(release)
	e.service.flights.going.Wait()
	if e.download(t, q); origin.requests.Load() != 1 {
		t.Errorf("%d requests", origin.requests.Load())
	}
}

func TestCloseEndsDownloads(t *testing.T) {
	e := startDownloads(t, nil)
	begun := make(chan struct{})
	origin := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	})
	failed := make(chan error, 1)
	go func() {
		_, err := e.fetch.FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{origin.URL}})
		failed <- err
	}()
	<-begun
	e.service.Close()
	wantCode(t, "closed meanwhile", <-failed, codes.Unavailable)
}

func TestDownloadsWaitForSlots(t *testing.T) {
	e := startDownloads(t, func(o *Options) { o.Parallel = 1 })
	release, begun := make(chan struct{}), make(chan struct{}, 2)
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-release
		io.Copy(w, strings.NewReader("x"))
	})
	f := e.service.flights
	first, err := f.join(want(origin.URL+"/1"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	w := want(origin.URL + "/2")
	w.timeout = 10 * time.Millisecond
	second, err := f.join(w, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	<-second.done
	var late *UpstreamError
	if !errors.As(second.err, &late) || late.Code != codes.DeadlineExceeded {
		t.Errorf("second: %v", second.err)
	}
	close(release)
	<-first.done
	if first.err != nil || origin.requests.Load() != 1 {
		t.Errorf("first: %v, %d requests", first.err, origin.requests.Load())
	}
}

func TestFetchOfDirectoriesDownloadsNothing(t *testing.T) {
	e := startDownloads(t, nil)
	origin := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	_, err := e.fetch.FetchDirectory(t.Context(), &rapb.FetchDirectoryRequest{Uris: []string{origin.URL}, DigestFunction: repb.DigestFunction_SHA256})
	wantCode(t, "directory from a web server", err, codes.NotFound)
	if origin.requests.Load() != 0 {
		t.Error("it was contacted")
	}
}
