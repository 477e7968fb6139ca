package node

import (
	"path/filepath"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/image"
	"github.com/buildmesh/buildmesh/exec/run"
	"github.com/buildmesh/buildmesh/node/asset"
	"github.com/buildmesh/buildmesh/node/registry"
)

// openImages opens what container images become roots with; nil where the configuration wants none or
// the sandbox cannot give an action a root of its own.
func (n *Node) openImages(m *machine, dir string) (run.Images, error) {
	if !m.offer.Images {
		return nil, nil
	}
	from := registry.New(registry.Options{Allowed: instances(n.config.Exec.ImageRegistries), Public: asset.CheckPublic})
	images, err := image.Open(from, imageBlobs{runBlobs{n.unnamed()}, stageBlobs{n.store}}, image.Options{
		Dir: filepath.Join(dir, "images"), MaxBytes: int64(n.config.Exec.ImageSize),
	})
	if err != nil {
		return nil, err
	}
	n.onClose("images", func() error {
		err := images.Close()
		from.Close()
		return err
	})
	return images, nil
}

// imageBlobs is the store as exec/image asks for it.
type imageBlobs struct {
	runBlobs
	stage stageBlobs
}

// Pin gives the release of a pin as a function.
func (s imageBlobs) Pin(ds []digest.Digest) (release func(), missing []digest.Digest) {
	return s.stage.Pin(ds)
}
