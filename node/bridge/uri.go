package bridge

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// Beginnings of this node's own URIs. mesh.invalid is a name that no name server knows (RFC 6761), so
// that nobody else can answer for it.
const (
	artifactURI = "https://mesh.invalid/bst/"
	treeURI     = "https://mesh.invalid/tree/"
	site        = "https://mesh.invalid/"
	targetURI   = "mesh:bazel://"
	own         = "mesh:"
	tarSuffix   = ".tar"
)

// Owns reports whether a URI is this node's own: answered here, and pushed by nobody.
func (o *Origin) Owns(uri string) bool {
	return strings.HasPrefix(uri, own) || strings.HasPrefix(uri, site) || uri == strings.TrimSuffix(site, "/")
}

// ParseTree reads the name of a tree, HASH-SIZE or HASH/SIZE.
func ParseTree(fn digest.Function, s string) (digest.Digest, error) {
	hash, size, found := strings.Cut(strings.ReplaceAll(s, "/", "-"), "-")
	n, err := strconv.ParseInt(size, 10, 64)
	if !found || err != nil || strconv.FormatInt(n, 10) != size {
		return digest.Digest{}, fmt.Errorf("%.200q is no tree: want HASH/SIZE", s)
	}
	return digest.Parse(fn, hash, n)
}

// Target is a Bazel target and what of its outputs is wanted.
type Target struct {
	Label    string // in the form that Label gives
	Path     string // "": everything
	Mnemonic string // "": of all actions
}

// ParseTarget reads a target's URI, with or without its beginning.
func ParseTarget(s string) (Target, error) {
	rest := strings.TrimPrefix(s, targetURI)
	rest, query, _ := strings.Cut(rest, "?")
	label, err := Label(rest)
	if err != nil {
		return Target{}, err
	}
	t := Target{Label: label}
	values, err := url.ParseQuery(query)
	if err != nil {
		return t, fmt.Errorf("%.200q: %w", s, err)
	}
	for name, v := range values {
		switch {
		case name == "path" && len(v) == 1 && below(v[0]) != "":
			t.Path = below(v[0])
		case name == "mnemonic" && len(v) == 1 && v[0] != "":
			t.Mnemonic = v[0]
		default:
			return t, fmt.Errorf("%.200q: %q is neither path=PATH nor mnemonic=NAME", s, name)
		}
	}
	return t, nil
}

// URI is the target's URI in its one form.
func (t Target) URI() string {
	query := url.Values{}
	if t.Path != "" {
		query.Set("path", t.Path)
	}
	if t.Mnemonic != "" {
		query.Set("mnemonic", t.Mnemonic)
	}
	uri := targetURI + t.Label
	if len(query) > 0 {
		uri += "?" + query.Encode()
	}
	return uri
}

// badURI makes the error for a URI of our own that cannot be read.
func badURI(err error) error { return &reapi.FieldError{Field: "uris", Reason: err.Error()} }
