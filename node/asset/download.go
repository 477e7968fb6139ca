package asset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// UpstreamError is a failure outside of this node's control: it goes into response.status.
type UpstreamError struct {
	Code   codes.Code
	Reason string
}

func (e *UpstreamError) Error() string { return e.Reason }

func upstream(code codes.Code, format string, args ...any) error {
	return &UpstreamError{code, fmt.Sprintf(format, args...)}
}

// temporary is how the files of downloads are called.
const temporary = "download-"

const (
	maxRedirects   = 10
	dialTimeout    = 20 * time.Second
	headerTimeout  = time.Minute
	idleConnection = 30 * time.Second
)

// downloader brings content from web servers into the blob store.
type downloader struct {
	blobs     Blobs
	dir       string
	maxBytes  int64
	transport *http.Transport
}

// newDownloader makes o.Dir and removes what an earlier process left there.
func newDownloader(blobs Blobs, o Options) (*downloader, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	old, err := filepath.Glob(filepath.Join(o.Dir, temporary+"*"))
	if err != nil {
		return nil, err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	dialer := &net.Dialer{Timeout: dialTimeout, Control: guard(o.Allowed)}
	return &downloader{
		blobs: blobs, dir: o.Dir, maxBytes: o.MaxBytes,
		transport: &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, DisableCompression: true,
			TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: headerTimeout, IdleConnTimeout: idleConnection,
			MaxResponseHeaderBytes: 256 << 10, MaxIdleConns: 32,
		},
	}, nil
}

// get downloads what is wanted, checks it and stores it. Errors: *UpstreamError, the disk's, the store's.
func (d *downloader) get(ctx context.Context, w wanted) (digest.Digest, error) {
	response, err := d.open(ctx, w)
	if err != nil {
		return digest.Digest{}, blame(ctx, err)
	}
	defer response.Body.Close()
	if err := d.accept(response); err != nil {
		return digest.Digest{}, err
	}
	file, err := os.CreateTemp(d.dir, temporary)
	if err != nil {
		return digest.Digest{}, err
	}
	defer os.Remove(file.Name()) // the store may have taken it
	err = d.copy(ctx, file, response.Body, w.qualifiers.integrity)
	if err = errors.Join(err, file.Close()); err != nil {
		return digest.Digest{}, err
	}
	got, err := d.blobs.PutFile(ctx, w.fn, file.Name())
	switch {
	case errors.Is(err, cas.ErrTooLarge):
		return got, upstream(codes.ResourceExhausted, "the content is larger than the blob store takes")
	case err != nil && ctx.Err() != nil:
		return got, blame(ctx, err)
	}
	return got, err
}

// open sends the request and follows redirects.
func (d *downloader) open(ctx context.Context, w wanted) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.uri, nil)
	if err != nil || request.URL.Host == "" {
		return nil, upstream(codes.NotFound, "the URI is malformed")
	}
	headers := w.qualifiers.headersFor(w.at)
	request.Header = headers.Clone()
	if request.Header.Get("User-Agent") == "" {
		request.Header.Set("User-Agent", "buildmesh")
	}
	client := &http.Client{Transport: d.transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		return redirect(next, via, headers, len(w.qualifiers.integrity) > 0)
	}}
	return client.Do(request)
}

// redirect decides whether to follow one. The headers a client gave are for the host it gave them for.
// Content that has no checksum must not come over a connection that anybody can change.
func redirect(next *http.Request, via []*http.Request, headers http.Header, verified bool) error {
	first := via[0].URL
	switch {
	case len(via) >= maxRedirects:
		return upstream(codes.Aborted, "there are more than %d redirects", maxRedirects)
	case next.URL.Scheme != "http" && next.URL.Scheme != "https":
		return upstream(codes.PermissionDenied, "it redirects to the scheme %.50q", next.URL.Scheme)
	case first.Scheme == "https" && next.URL.Scheme == "http" && !verified:
		return upstream(codes.PermissionDenied, "it redirects from https to http, and there is no checksum")
	case next.URL.Host != first.Host || next.URL.Scheme != first.Scheme:
		for name := range headers {
			next.Header.Del(name)
		}
	}
	return nil
}

// accept looks at a response before its body.
func (d *downloader) accept(r *http.Response) error {
	switch code := r.StatusCode; {
	case code == http.StatusOK:
	case code == http.StatusNotFound || code == http.StatusGone:
		return upstream(codes.NotFound, "the server says %.100q", r.Status)
	case code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusProxyAuthRequired:
		return upstream(codes.PermissionDenied, "the server says %.100q", r.Status)
	case code == http.StatusTooManyRequests || code >= 500:
		return upstream(codes.Unavailable, "the server says %.100q", r.Status)
	default:
		return upstream(codes.Aborted, "the server says %.100q", r.Status)
	}
	if r.ContentLength > d.maxBytes {
		return upstream(codes.ResourceExhausted, "the content has %d bytes, at most %d are allowed", r.ContentLength, d.maxBytes)
	}
	return nil
}

// copy writes a body to a file and checks its size and its checksum.
func (d *downloader) copy(ctx context.Context, to io.Writer, body io.Reader, want integrity) error {
	v := want.verifier()
	n, err := io.Copy(io.MultiWriter(to, v), io.LimitReader(foreign{body}, d.maxBytes+1))
	var theirs *bodyError
	switch {
	case errors.As(err, &theirs):
		return blame(ctx, theirs.err)
	case err != nil:
		return err
	case n > d.maxBytes:
		return upstream(codes.ResourceExhausted, "the content has more than %d bytes", d.maxBytes)
	case !v.satisfied():
		return upstream(codes.Aborted, "the content (%d bytes) does not have the checksum asked for", n)
	}
	return nil
}

// foreign is a body whose errors are told from those of the file they are written to.
type foreign struct{ body io.Reader }

type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }

func (f foreign) Read(p []byte) (int, error) {
	n, err := f.body.Read(p)
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	return n, err
}

// blame makes an UpstreamError of a failed exchange. The end of a download by Close is our own.
func blame(ctx context.Context, err error) error {
	var known *UpstreamError
	var timeout net.Error
	var wrapped *url.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(context.Cause(ctx), errClosed):
		return errClosed
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return upstream(codes.DeadlineExceeded, "the download was not complete in time")
	case errors.Is(err, errForbidden):
		return upstream(codes.PermissionDenied, "%v", reason(err))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return upstream(codes.Aborted, "the server ended the content too early")
	case errors.Is(err, io.EOF):
		return upstream(codes.Unavailable, "the server closed the connection without an answer")
	case errors.As(err, &wrapped):
		return upstream(codes.Unavailable, "%s", reason(wrapped.Err))
	}
	return upstream(codes.Unavailable, "%s", reason(err))
}

// reason is an error's message, of one line and some length, without the URI.
func reason(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return strings.ReplaceAll(clip(err.Error()), "\n", " ")
}
