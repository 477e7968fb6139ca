package action

import (
	"context"
	"fmt"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/platform"
)

// Action is an Action message and its Command, validated. It is shared and never changed.
type Action struct {
	Digest, CommandDigest, InputRoot digest.Digest

	Arguments        []string // at least one
	Env              []string // NAME=value, in the order sent, no name twice
	WorkingDirectory string   // clean, relative to the input root; "" is the input root

	Outputs              []Output // in the order sent, no Clean twice
	Format               repb.Command_OutputDirectoryFormat
	OutputNodeProperties []string // "mtime", "unix_mode"; sorted, no name twice
	Legacy               bool     // Outputs come from output_files and output_directories

	Platform   platform.Request
	Timeout    time.Duration // 0 when none was asked
	DoNotCache bool
	WholeRoot  bool   // the input root is meant to be the root file system
	Instance   string // it came by; set by who has Decode called
}

// Output is a path that the client wants back when it exists after the run.
type Output struct {
	Path      string // as sent, relative to the working directory: answers repeat it
	Clean     string // relative to the input root, clean; "." is the input root itself
	Directory bool   // came from output_directories; meaningless unless Action.Legacy
}

// Blobs is what Decode needs of a store.
type Blobs interface {
	// GetBatch fetches blobs; the element of one that is not there is nil.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
	// Missing reports which of ds are not there.
	Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error)
}

// Limits is what an endpoint accepts, and what it knows of the instance that an action came by.
// Zero values stand for the defaults given.
type Limits struct {
	MaxTimeout      time.Duration // longest timeout an action may ask for; default 24 h
	MaxMessageBytes int64         // largest Action or Command; default 16 MiB
	MaxOutputs      int           // default 100,000
	WholeRoot       bool          // every input root of the action's instance is a root file system
}

func (l Limits) withDefaults() Limits {
	if l.MaxTimeout <= 0 {
		l.MaxTimeout = 24 * time.Hour
	}
	if l.MaxMessageBytes <= 0 {
		l.MaxMessageBytes = 16 << 20
	}
	if l.MaxOutputs <= 0 {
		l.MaxOutputs = 100_000
	}
	return l
}

// MissingError lists every blob the client must upload before the action can run.
type MissingError struct {
	Digests []digest.Digest // without duplicates, at least one
}

func (e *MissingError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d missing blobs:", len(e.Digests))
	for i, d := range e.Digests {
		if i == 4 {
			fmt.Fprintf(&text, " and %d more", len(e.Digests)-i)
			break
		}
		text.WriteString(" " + d.Short())
	}
	return text.String()
}

// InvalidError says which field of an Action or Command breaks the protocol, and how.
type InvalidError struct {
	Field  string // as the protocol names it, with an index where it is a list
	Reason string
}

func (e *InvalidError) Error() string { return fmt.Sprintf("action field %s: %s", e.Field, e.Reason) }

// UnsupportedError says which platform property no executor fulfils.
type UnsupportedError struct {
	Property string
	Err      error // the reason, from exec/platform or exec/slot
}

func (e *UnsupportedError) Error() string { return "unsupported action: " + e.Err.Error() }

// Unwrap gives the reason.
func (e *UnsupportedError) Unwrap() error { return e.Err }
