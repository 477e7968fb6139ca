package asset

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

var (
	// ErrNotFound means that no asset with complete content is known by any of the names.
	ErrNotFound = errors.New("asset not found")
	// ErrInvalid means that an asset cannot be kept as it is: no URI, too many, too long.
	ErrInvalid = errors.New("invalid asset")
	// ErrTooLarge means that the content of one asset alone is over the index's limit.
	ErrTooLarge = errors.New("asset is too large")
	// ErrClosed means that the index was closed.
	ErrClosed = record.ErrClosed
)

// Bounds of one asset.
const (
	MaxURIs       = 64
	MaxURI        = 8 << 10  // bytes of one URI
	MaxReferences = 16 << 10 // blobs and directories together
	maxEncoded    = 2 << 20  // bytes of its record
)

// Kind tells what an asset's content is.
type Kind uint8

// The kinds. Their numbers are stored.
const (
	Blob      Kind = 1
	Directory Kind = 2
)

func (k Kind) String() string {
	switch k {
	case Blob:
		return "blob"
	case Directory:
		return "directory"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// Qualifier narrows down what a URI means. What the names mean is the caller's affair; here they are
// compared byte for byte.
type Qualifier struct{ Name, Value string }

// Asset is content under its names.
type Asset struct {
	Kind       Kind
	URIs       []string // any of them finds it
	Qualifiers []Qualifier
	Digest     digest.Digest // of a blob, or of a root Directory
	// Blobs and Directories are what the content refers to, made by the same digest function.
	Blobs, Directories []digest.Digest
	Pushed             time.Time // when it was pushed, or when its retrieval began
	Expires            time.Time // it is not given from then on; zero: never
}

// validate checks the bounds. Errors: ErrInvalid.
func (a *Asset) validate() error {
	switch {
	case a.Kind != Blob && a.Kind != Directory:
		return fmt.Errorf("%s: %w", a.Kind, ErrInvalid)
	case a.Digest.IsZero():
		return fmt.Errorf("it has no content: %w", ErrInvalid)
	case len(a.URIs) == 0 || len(a.URIs) > MaxURIs:
		return fmt.Errorf("it has %d URIs, 1 to %d are allowed: %w", len(a.URIs), MaxURIs, ErrInvalid)
	case len(a.Blobs)+len(a.Directories) > MaxReferences:
		return fmt.Errorf("it has %d references, at most %d are allowed: %w", len(a.Blobs)+len(a.Directories), MaxReferences, ErrInvalid)
	}
	for _, uri := range a.URIs {
		if uri == "" || len(uri) > MaxURI {
			return fmt.Errorf("a URI has %d bytes, 1 to %d are allowed: %w", len(uri), MaxURI, ErrInvalid)
		}
	}
	for _, ds := range [][]digest.Digest{a.Blobs, a.Directories} {
		for _, d := range ds {
			if d.Function() != a.Digest.Function() {
				return fmt.Errorf("it refers to a digest of another function: %w", ErrInvalid)
			}
		}
	}
	return nil
}

// Query asks for an asset.
type Query struct {
	Kind       Kind
	Function   digest.Function
	URIs       []string // in the order of preference
	Qualifiers []Qualifier
	Oldest     time.Time // only what was pushed then or later; zero: of any age
}

// key is what a name is stored under: a hash of everything that distinguishes names.
func key(kind Kind, fn digest.Function, uri string, qualifiers []Qualifier) (k record.Key) {
	sorted := slices.Clone(qualifiers)
	slices.SortFunc(sorted, func(a, b Qualifier) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
	})
	b := []byte{byte(kind), byte(fn)}
	add := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	add(uri)
	for _, q := range sorted {
		add(q.Name)
		add(q.Value)
	}
	sum := sha256.Sum256(b)
	copy(k[:], sum[:])
	k[record.KeySize-1] = 'a'
	return k
}
