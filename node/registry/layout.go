package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/buildmesh/buildmesh/exec/image"
)

// maxManifest bounds what is read into memory.
const maxManifest = 4<<20 + 1

// refName is the annotation that holds a tag in a layout's index.
const refName = "org.opencontainers.image.ref.name"

// layout is the directory of an OCI image layout (image-layout.md).
type layout string

// open opens a blob. What is no regular file is not there.
func (l layout) open(hash v1.Hash) (io.ReadCloser, error) {
	return l.file(filepath.Join("blobs", hash.Algorithm, hash.Hex))
}

func (l layout) file(name string) (io.ReadCloser, error) {
	path := filepath.Join(string(l), name)
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: no %s in the layout %s", image.ErrNotFound, name, l)
		}
		return nil, fmt.Errorf("%w: %w", image.ErrForbidden, err)
	}
	return os.Open(path)
}

func (l layout) read(name string) ([]byte, error) {
	file, err := l.file(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxManifest))
}

func (l layout) manifest(hash v1.Hash) ([]byte, error) {
	return l.read(filepath.Join("blobs", hash.Algorithm, hash.Hex))
}

// resolve finds the manifest of a tag; without one, the only manifest.
func (l layout) resolve(tag string) (v1.Hash, error) {
	data, err := l.read("index.json")
	if err != nil {
		return v1.Hash{}, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return v1.Hash{}, fmt.Errorf("%w: index.json: %w", image.ErrCorrupt, err)
	}
	for _, m := range index.Manifests {
		if tag == "" && len(index.Manifests) == 1 || tag != "" && m.Annotations[refName] == tag {
			return m.Digest, nil
		}
	}
	return v1.Hash{}, fmt.Errorf("%w: index.json has %d manifests and none for the tag %q", image.ErrNotFound, len(index.Manifests), tag)
}
