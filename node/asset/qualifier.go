package asset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	index "github.com/buildmesh/buildmesh/dht/asset"
)

// Names of qualifiers. Those of headers go on with the header's name, or with the number of a URI, a
// colon and the header's name.
const (
	checksumSRI    = "checksum.sri"
	canonicalID    = "bazel.canonical_id"
	httpHeader     = "http_header:"
	httpHeaderURL  = "http_header_url:"
	maxQualifiers  = 256
	maxHeaderBytes = 64 << 10 // of all headers together
)

// pushedOnly are qualifiers that a push may carry, and that a download cannot satisfy.
var pushedOnly = map[string]bool{"resource_type": true, "directory": true, "vcs.branch": true, "vcs.commit": true}

// qualifiers are a request's, checked.
type qualifiers struct {
	plain     []index.Qualifier // all but headers
	integrity integrity         // empty: none asked for
	headers   []header
}

// header is an HTTP header for the URI with number at, or for all when at is -1.
type header struct {
	name, value string // name in canonical form
	at          int
}

// parseQualifiers checks the qualifiers of a request with so many URIs. All unsupported ones are told
// at once, as service Fetch describes.
func parseQualifiers(list []*rapb.Qualifier, uris int) (*qualifiers, error) {
	if len(list) > maxQualifiers {
		return nil, field("qualifiers", "%d are more than %d", len(list), maxQualifiers)
	}
	q := &qualifiers{}
	seen := make(map[string]bool, len(list))
	var unknown []string
	size := 0
	for _, item := range list {
		name, value := item.GetName(), item.GetValue()
		if seen[name] {
			return nil, field("qualifiers.name", "%.200q occurs twice", name)
		}
		seen[name] = true
		switch {
		case name == checksumSRI:
			i, err := parseIntegrity(value)
			if err != nil {
				return nil, field("qualifiers.value", "%s: %v", checksumSRI, err)
			}
			q.integrity = i
			q.plain = append(q.plain, index.Qualifier{Name: name, Value: value})
		case name == canonicalID || pushedOnly[name]:
			q.plain = append(q.plain, index.Qualifier{Name: name, Value: value})
		case strings.HasPrefix(name, httpHeader) || strings.HasPrefix(name, httpHeaderURL):
			h, err := parseHeader(name, value, uris)
			if err != nil {
				return nil, err
			}
			if size += len(h.name) + len(h.value); size > maxHeaderBytes {
				return nil, field("qualifiers.value", "headers have more than %d bytes", maxHeaderBytes)
			}
			q.headers = append(q.headers, h)
		default:
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return nil, unsupported(unknown)
	}
	return q, nil
}

// hopHeaders belong to the connection and to the client that makes it.
var hopHeaders = map[string]bool{
	"Connection": true, "Content-Length": true, "Host": true, "Keep-Alive": true, "Proxy-Authorization": true,
	"Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Range": true,
}

// parseHeader reads the qualifier of a header.
func parseHeader(name, value string, uris int) (header, error) {
	h := header{value: value, at: -1}
	raw, all := strings.CutPrefix(name, httpHeader)
	if !all {
		number, rest, found := strings.Cut(strings.TrimPrefix(name, httpHeaderURL), ":")
		at, err := strconv.Atoi(number)
		if !found || err != nil || at < 0 || at >= uris {
			return h, field("qualifiers.name", "%.200q does not number a URI of the request", name)
		}
		raw, h.at = rest, at
	}
	h.name = http.CanonicalHeaderKey(raw)
	if !httpguts.ValidHeaderFieldName(raw) || hopHeaders[h.name] {
		return h, field("qualifiers.name", "%.200q does not name a header that can be set", name)
	}
	if !httpguts.ValidHeaderFieldValue(value) {
		return h, field("qualifiers.value", "the value of %.200q cannot be sent", name)
	}
	return h, nil
}

// unsupported makes the error for qualifiers this node does not know or cannot satisfy.
func unsupported(names []string) error {
	bad := &errdetails.BadRequest{}
	for _, name := range names {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: "qualifiers.name", Description: fmt.Sprintf("%q not supported", clip(name)),
		})
	}
	s := status.New(codes.InvalidArgument, fmt.Sprintf("qualifier %q not supported", clip(names[0])))
	if detailed, err := s.WithDetails(bad); err == nil {
		s = detailed
	}
	return s.Err()
}

// clip keeps names in messages short and printable as UTF-8.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 200)], "?") }

// forDownload refuses qualifiers that content from a web server cannot be checked against.
func (q *qualifiers) forDownload() error {
	var names []string
	for _, p := range q.plain {
		if pushedOnly[p.Name] {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return unsupported(names)
}

// identity are the qualifiers that content is found by. Headers may decide what a server gives, so
// they count (as hashes: they are secrets), unless a checksum says what the content is.
func (q *qualifiers) identity() []index.Qualifier {
	id := append([]index.Qualifier(nil), q.plain...)
	if len(q.integrity) > 0 {
		return id
	}
	for _, h := range q.headers {
		sum := sha256.Sum256([]byte(h.value))
		id = append(id, index.Qualifier{Name: fmt.Sprintf("%s%d:%s", httpHeaderURL, h.at, h.name), Value: hex.EncodeToString(sum[:])})
	}
	return id
}

// headersFor gives the headers for URI number at.
func (q *qualifiers) headersFor(at int) http.Header {
	out := http.Header{}
	for _, h := range q.headers {
		if h.at == -1 || h.at == at {
			out.Set(h.name, h.value)
		}
	}
	return out
}
