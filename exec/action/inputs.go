package action

import (
	"context"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// maxListed bounds how many nodes a search for missing inputs looks at; a tree beyond it is refused by
// name and limits when it is loaded.
const maxListed = 1 << 21

// withMissingInputs adds to missing every blob that the input tree lacks.
func (a *Action) withMissingInputs(ctx context.Context, blobs Blobs, missing *MissingError) error {
	more, err := MissingInputs(ctx, blobs, a.InputRoot)
	if err != nil {
		return err
	}
	listed := make(map[digest.Digest]bool, len(missing.Digests))
	all := make([]digest.Digest, 0, len(missing.Digests)+len(more))
	for _, d := range append(missing.Digests, more...) {
		if !listed[d] {
			listed[d] = true
			all = append(all, d)
		}
	}
	return &MissingError{Digests: all}
}

// MissingInputs lists every directory and file below root that the store lacks, as far as the
// directories that it has reach. It does not judge names: the tree's loader does.
func MissingInputs(ctx context.Context, blobs Blobs, root digest.Digest) ([]digest.Digest, error) {
	var missing, files []digest.Digest
	seen := visited{directories: map[digest.Digest]bool{root: true}, files: map[digest.Digest]bool{}}
	for level := []digest.Digest{root}; len(level) > 0; {
		data, err := blobs.GetBatch(ctx, level)
		if err != nil {
			return nil, fmt.Errorf("look for missing inputs: %w", err)
		}
		var next []digest.Digest
		for i, d := range level {
			if data[i] == nil {
				missing = append(missing, d)
				continue
			}
			directory := &repb.Directory{}
			if err := proto.Unmarshal(data[i], directory); err != nil {
				return nil, &InvalidError{Field: "input_root_digest", Reason: fmt.Sprintf("%s is no Directory: %v", d, err)}
			}
			children, content, err := seen.nodes(d.Function(), directory)
			if err != nil {
				return nil, &InvalidError{Field: "input_root_digest", Reason: fmt.Sprintf("directory %s: %v", d, err)}
			}
			next, files = append(next, children...), append(files, content...)
		}
		if len(seen.directories)+len(seen.files) > maxListed {
			return nil, &InvalidError{Field: "input_root_digest", Reason: fmt.Sprintf("the tree has more than %d nodes", maxListed)}
		}
		level = next
	}
	absent, err := blobs.Missing(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("look for missing inputs: %w", err)
	}
	return append(missing, absent...), nil
}

// visited holds what a search has seen. The same bytes may be a directory here and a file there.
type visited struct{ directories, files map[digest.Digest]bool }

// nodes gives the digests of a Directory's children that were not seen before, and marks them as seen.
func (v visited) nodes(fn digest.Function, m *repb.Directory) (directories, files []digest.Digest, err error) {
	for _, node := range m.Directories {
		d, err := digest.FromProto(fn, node.GetDigest())
		if err != nil {
			return nil, nil, fmt.Errorf("%q: %w", node.GetName(), err)
		}
		if !v.directories[d] {
			v.directories[d] = true
			directories = append(directories, d)
		}
	}
	for _, node := range m.Files {
		d, err := digest.FromProto(fn, node.GetDigest())
		if err != nil {
			return nil, nil, fmt.Errorf("%q: %w", node.GetName(), err)
		}
		if !v.files[d] {
			v.files[d] = true
			files = append(files, d)
		}
	}
	return directories, files, nil
}
