package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// imported begins the URI under which the index of assets keeps what was brought in from outside.
const imported = own + "imported:"

// Find gives the root of what a person names: a tree HASH/SIZE, a Bazel target //PACKAGE:NAME (or @REPO//...), or an artifact
// PROJECT/ELEMENT/KEY. Errors: *reapi.FieldError for a name of no such form, ErrNotFound.
func (o *Origin) Find(ctx context.Context, name string) (digest.Digest, error) {
	switch {
	case isTarget(name):
		t, err := ParseTarget(name)
		if err != nil {
			return digest.Digest{}, badURI(err)
		}
		return o.Target(ctx, digest.SHA256, t)
	case strings.Count(name, "/") >= 2:
		n, err := ParseName(name)
		if err != nil {
			return digest.Digest{}, badURI(err)
		}
		return o.Artifact(ctx, n)
	}
	return o.tree(ctx, strings.ReplaceAll(name, "/", "-"))
}

// isTarget reports whether a name is a Bazel label or a target's URI.
func isTarget(name string) bool {
	return strings.HasPrefix(name, "//") || strings.HasPrefix(name, "@") || strings.HasPrefix(name, targetURI)
}

// Adopt keeps a tree that was brought in from outside: as itself (name is empty), as what a Bazel target made, or as an
// artifact that BuildStream finds under its name. Digests must be SHA256. Errors: *reapi.FieldError, ErrNotFound when the
// tree is not complete.
func (o *Origin) Adopt(ctx context.Context, name string, root digest.Digest) error {
	switch {
	case name == "":
		return o.keepDirectory(ctx, imported+root.String(), root)
	case isTarget(name):
		t, err := ParseTarget(name)
		if err != nil {
			return badURI(err)
		}
		if t.Path != "" || t.Mnemonic != "" {
			return badURI(fmt.Errorf("%.200q: a target is adopted whole, without path or mnemonic", name))
		}
		return o.keepDirectory(ctx, imported+t.Label, root)
	}
	n, err := ParseName(name)
	if err != nil {
		return badURI(err)
	}
	return o.adoptArtifact(ctx, n, root)
}

// keepDirectory has the index keep a tree under a URI.
func (o *Origin) keepDirectory(ctx context.Context, uri string, root digest.Digest) error {
	return absent(o.options.Assets.Push(ctx, index.Asset{Kind: index.Directory, URIs: []string{uri}, Digest: root}))
}

// adoptArtifact stores an artifact as BuildStream would have pushed it.
func (o *Origin) adoptArtifact(ctx context.Context, n Name, root digest.Digest) error {
	metadata := digest.SHA256.Empty()
	message := NewArtifact(n.Key, root, metadata)
	d := digest.SHA256.Of(message)
	if errs := o.options.Blobs.PutBatch(ctx, []cas.Blob{{Digest: d, Data: message}, {Digest: metadata}}); errs != nil {
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("store artifact %s: %w", n, err)
		}
	}
	return absent(o.options.Assets.Push(ctx, index.Asset{
		Kind: index.Blob, URIs: []string{n.URN()}, Digest: d,
		Blobs: []digest.Digest{metadata}, Directories: []digest.Digest{root},
	}))
}

// importedTarget gives what was adopted as a target.
func (o *Origin) importedTarget(ctx context.Context, fn digest.Function, t Target) (digest.Digest, error) {
	found, _, err := o.options.Assets.Fetch(ctx, index.Query{Kind: index.Directory, Function: fn, URIs: []string{imported + t.Label}})
	if err != nil {
		return digest.Digest{}, err
	}
	if t.Path == "" {
		return found.Digest, nil
	}
	root, err := within(ctx, o.options.Blobs, found.Digest, t.Path)
	return root, absent(err)
}
