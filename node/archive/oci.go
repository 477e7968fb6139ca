package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/buildmesh/buildmesh/dht/tree"
)

// LayoutFile marks a directory as an OCI layout (OCI image-spec, image-layout.md).
const LayoutFile = "oci-layout"

// Layout writes a tar as an OCI layout of one image with one layer into dir, which must be empty or not exist, and gives the
// digest of the image, such as sha256:.... The same tar gives the same bytes. On an error dir may hold a part of it.
func Layout(ctx context.Context, r io.Reader, dir string) (string, error) {
	if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
		return "", fmt.Errorf("write OCI layout: %s is not empty", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write OCI layout: %w", err)
	}
	file, err := os.CreateTemp(dir, ".layer-")
	if err != nil {
		return "", fmt.Errorf("write OCI layout: %w", err)
	}
	defer os.Remove(file.Name())
	_, err = io.Copy(file, &untilDone{ctx, r})
	if err = errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("write OCI layout: %w", err)
	}
	image, err := imageOf(file.Name())
	if err != nil {
		return "", fmt.Errorf("write OCI layout: %w", err)
	}
	at, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = at.AppendImage(image)
	}
	if err != nil {
		return "", fmt.Errorf("write OCI layout: %w", err)
	}
	digest, err := image.Digest()
	return digest.String(), err
}

// imageOf makes an image of one layer.
func imageOf(path string) (v1.Image, error) {
	layer, err := tarball.LayerFromFile(path, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created, config.History = "linux", runtime.GOARCH, v1.Time{Time: tree.ModTime}, nil
	return mutate.ConfigFile(image, config)
}

// IsLayout reports whether dir is an OCI layout.
func IsLayout(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, LayoutFile))
	return err == nil
}

// Flatten writes the root file system of the one image in an OCI layout as a tar, its layers one over the other. Of several
// images it takes the one for this machine. Everything that the layout says is checked against its digests.
func Flatten(ctx context.Context, w io.Writer, dir string) error {
	image, err := imageIn(dir)
	if err != nil {
		return fmt.Errorf("read OCI layout %s: %w", dir, err)
	}
	// What a layout's files are called says nothing about their content.
	if err := validate.Image(image); err != nil {
		return fmt.Errorf("read OCI layout %s: %w", dir, err)
	}
	flat := mutate.Extract(image)
	defer flat.Close()
	if _, err := io.Copy(w, &untilDone{ctx, flat}); err != nil {
		return fmt.Errorf("read OCI layout %s: %w", dir, err)
	}
	return nil
}

// imageIn finds the image of a layout.
func imageIn(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range manifest.Manifests {
		only := len(manifest.Manifests) == 1
		fits := d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH
		if d.MediaType.IsImage() && (only || fits) {
			return described(index, d)
		}
	}
	return nil, fmt.Errorf("it has %d images, and none that is the only one or for linux/%s", len(manifest.Manifests), runtime.GOARCH)
}

// described gives an image whose manifest has the digest by which the index has it.
func described(index v1.ImageIndex, d v1.Descriptor) (v1.Image, error) {
	image, err := index.Image(d.Digest)
	if err != nil {
		return nil, err
	}
	manifest, err := image.RawManifest()
	if err != nil {
		return nil, err
	}
	got, _, err := v1.SHA256(bytes.NewReader(manifest))
	if err == nil && got != d.Digest {
		err = refuse(d.Digest.String(), "the manifest's content has the digest %s", got)
	}
	return image, err
}

// untilDone reads until its context ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (u *untilDone) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}
