package bridge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/node/archive"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// ErrNotFound says that this node does not have what a URI of its own names.
var ErrNotFound = index.ErrNotFound

// Assets is the index of assets: dht/asset's Index.
type Assets interface {
	Push(ctx context.Context, a index.Asset) error
	Fetch(ctx context.Context, q index.Query) (*index.Asset, string, error)
}

// Blobs is the blob store.
type Blobs interface {
	archive.Source
	archive.Sink
}

// Options are what an Origin works with. All must be set.
type Options struct {
	Assets  Assets
	Blobs   Blobs
	Results Results
	Targets *Targets
	Dir     string // for tars until they are stored: its own, on the blob store's file system
}

// Origin answers this node's own URIs. Safe for concurrent use.
type Origin struct {
	options Options
	making  chan struct{} // held by who makes a tar: the next finds it made
}

// New makes an Origin, and o.Dir without what an earlier process left there.
func New(o Options) (*Origin, error) {
	if err := os.RemoveAll(o.Dir); err != nil {
		return nil, fmt.Errorf("clear tars: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of tars: %w", err)
	}
	return &Origin{options: o, making: make(chan struct{}, 1)}, nil
}

// Note has the targets remember a result that passes by, for the target that the call of ctx is about.
func (o *Origin) Note(ctx context.Context, action digest.Digest, r *repb.ActionResult) {
	m := reapi.MetadataFrom(ctx)
	o.options.Targets.Note(m.Target, m.Mnemonic, action, r)
}

// Blob gives the blob that a URI of this node's own names, with its digest made by fn. Errors:
// *reapi.FieldError for a URI that names none, ErrNotFound.
func (o *Origin) Blob(ctx context.Context, fn digest.Function, uri string) (digest.Digest, error) {
	name, isTar := strings.CutSuffix(uri, tarSuffix)
	artifact, isArtifact := strings.CutPrefix(name, artifactURI)
	hash, isTree := strings.CutPrefix(name, treeURI)
	switch {
	case isTar && isArtifact:
		n, err := ParseName(artifact)
		if err != nil {
			return digest.Digest{}, badURI(err)
		}
		files, err := o.Artifact(ctx, n)
		if err != nil {
			return digest.Digest{}, err
		}
		return o.Tar(ctx, fn, files)
	case isTar && isTree:
		d, err := o.tree(ctx, hash)
		if err != nil {
			return digest.Digest{}, err
		}
		return o.Tar(ctx, fn, d)
	case strings.HasPrefix(uri, targetURI):
		return digest.Digest{}, badURI(fmt.Errorf("%.200q is a directory: fetch it with FetchDirectory", uri))
	}
	return digest.Digest{}, badURI(fmt.Errorf("%.200q names nothing: want %sPROJECT/ELEMENT/KEY.tar or %sHASH-SIZE.tar", uri, artifactURI, treeURI))
}

// Directory gives the directory that a URI of this node's own names.
func (o *Origin) Directory(ctx context.Context, fn digest.Function, uri string) (digest.Digest, error) {
	if !strings.HasPrefix(uri, targetURI) {
		return digest.Digest{}, badURI(fmt.Errorf("%.200q names no directory: want %s//PACKAGE:NAME", uri, targetURI))
	}
	t, err := ParseTarget(uri)
	if err != nil {
		return digest.Digest{}, badURI(err)
	}
	return o.Target(ctx, fn, t)
}

// tree finds a tree of the store by its name, whichever function made it.
func (o *Origin) tree(ctx context.Context, name string) (digest.Digest, error) {
	for _, fn := range digest.Functions() {
		d, err := ParseTree(fn, name)
		if err != nil {
			return d, badURI(err)
		}
		contents, err := o.options.Blobs.GetBatch(ctx, []digest.Digest{d})
		if err != nil {
			return d, err
		}
		if contents[0] != nil {
			return d, nil
		}
	}
	return digest.Digest{}, fmt.Errorf("tree %.100s is not in the store: %w", name, ErrNotFound)
}

// Artifact gives the files of an artifact, as a Directory. Errors: ErrNotFound, also for one whose
// content is gone and for that of a failed build.
func (o *Origin) Artifact(ctx context.Context, n Name) (digest.Digest, error) {
	q := index.Query{Kind: index.Blob, Function: digest.SHA256, URIs: []string{n.URN()}}
	found, _, err := o.options.Assets.Fetch(ctx, q)
	if errors.Is(err, ErrNotFound) {
		return digest.Digest{}, fmt.Errorf("artifact %s is not here, or not all of it is: build it again with BuildStream: %w", n, ErrNotFound)
	}
	if err != nil {
		return digest.Digest{}, err
	}
	contents, err := o.options.Blobs.GetBatch(ctx, []digest.Digest{found.Digest})
	if err != nil {
		return digest.Digest{}, err
	}
	a, err := DecodeArtifact(contents[0])
	switch {
	case err != nil:
		return digest.Digest{}, fmt.Errorf("artifact %s: %w: %w", n, err, ErrNotFound)
	case !a.Succeeded:
		return digest.Digest{}, fmt.Errorf("artifact %s is that of a failed build: %w", n, ErrNotFound)
	case a.Files.IsZero():
		return digest.Digest{}, fmt.Errorf("artifact %s has no files: %w", n, ErrNotFound)
	}
	return a.Files, nil
}

// Tar gives a tree as a tar, as a blob that is kept. Errors: ErrNotFound when the tree is not complete.
func (o *Origin) Tar(ctx context.Context, fn digest.Function, root digest.Digest) (digest.Digest, error) {
	uri := own + "tar://" + root.Function().String() + "/" + root.String()
	find := func() (digest.Digest, error) {
		a, _, err := o.options.Assets.Fetch(ctx, index.Query{Kind: index.Blob, Function: fn, URIs: []string{uri}})
		if err != nil {
			return digest.Digest{}, err
		}
		return a.Digest, nil
	}
	if d, err := find(); !errors.Is(err, ErrNotFound) {
		return d, err
	}
	select {
	case o.making <- struct{}{}:
		defer func() { <-o.making }()
	case <-ctx.Done():
		return digest.Digest{}, ctx.Err()
	}
	if d, err := find(); !errors.Is(err, ErrNotFound) {
		return d, err
	}
	d, err := o.makeTar(ctx, fn, root)
	if err != nil {
		return d, absent(err)
	}
	return d, o.keep(ctx, index.Asset{Kind: index.Blob, URIs: []string{uri}, Digest: d})
}

// makeTar writes a tar and stores it.
func (o *Origin) makeTar(ctx context.Context, fn digest.Function, root digest.Digest) (digest.Digest, error) {
	file, err := os.CreateTemp(o.options.Dir, "tar-")
	if err != nil {
		return digest.Digest{}, err
	}
	defer os.Remove(file.Name()) // the store may have taken it
	err = archive.Write(ctx, file, o.options.Blobs, root)
	if err = errors.Join(err, file.Close()); err != nil {
		return digest.Digest{}, err
	}
	return o.options.Blobs.PutFile(ctx, fn, filepath.Clean(file.Name()))
}

// keep has the index of assets keep something alive. What is too large for it lives as long as any blob.
func (o *Origin) keep(ctx context.Context, a index.Asset) error {
	if err := o.options.Assets.Push(ctx, a); !errors.Is(err, index.ErrTooLarge) {
		return absent(err)
	}
	return nil
}

// absent makes ErrNotFound of blobs that are missing.
func absent(err error) error {
	var missing *tree.MissingError
	if errors.As(err, &missing) || errors.Is(err, cas.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// Target gives the outputs of a Bazel target as a directory that is kept. Errors: ErrNotFound, also when
// results are no longer complete (*GoneError); those are forgotten.
func (o *Origin) Target(ctx context.Context, fn digest.Function, t Target) (digest.Digest, error) {
	all, err := o.options.Targets.find(t.Label, fn)
	if err != nil {
		return digest.Digest{}, err
	}
	laid, n := newLayout(fn, o.options.Blobs), 0
	var gone []made
	for _, m := range all {
		if t.Mnemonic != "" && m.mnemonic != t.Mnemonic {
			continue
		}
		n++
		r, err := o.options.Results.Get(ctx, m.action)
		if err == nil {
			err = laid.add(ctx, r)
		}
		var missing *tree.MissingError
		switch {
		case errors.Is(err, cas.ErrNotFound), errors.As(err, &missing):
			gone = append(gone, m)
		case err != nil:
			return digest.Digest{}, fmt.Errorf("outputs of %s: %w", t.Label, err)
		}
	}
	switch {
	case len(gone) > 0:
		return digest.Digest{}, o.forget(t.Label, gone)
	case n == 0 && len(all) > 0:
		return digest.Digest{}, fmt.Errorf("no action of %s has the mnemonic %.100q: %w", t.Label, t.Mnemonic, ErrNotFound)
	case n == 0:
		root, err := o.importedTarget(ctx, fn, t)
		if !errors.Is(err, ErrNotFound) {
			return root, err
		}
		return digest.Digest{}, fmt.Errorf("nothing built %s through this node: build it with Bazel: %w", t.Label, ErrNotFound)
	}
	root, err := laid.store(ctx)
	if err == nil && t.Path != "" {
		root, err = within(ctx, o.options.Blobs, root, t.Path)
	}
	if err != nil {
		return root, absent(err)
	}
	return root, o.keep(ctx, index.Asset{Kind: index.Directory, URIs: []string{t.URI()}, Digest: root})
}

// forget has results forgotten that are no longer complete, and makes the error that says so.
func (o *Origin) forget(label string, gone []made) error {
	e := &GoneError{Label: label}
	for _, g := range gone {
		e.Outputs = append(e.Outputs, g.output)
	}
	if err := o.options.Targets.forget(gone); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotFound, e)
}
