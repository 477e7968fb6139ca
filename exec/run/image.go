package run

import (
	"context"
	"errors"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/image"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/exec/stage"
)

// Images gives the roots of container images: exec/image's Catalog.
type Images interface {
	Use(ctx context.Context, property string) (*image.Root, error)
}

// beside is where the input root stands in an image's root: as among the machine's own tools.
var beside = strings.TrimPrefix(platform.InputRootHost, "/")

// useImage makes the image an action asks for its root.
func (e *execution) useImage(ctx context.Context) (err error) {
	name := e.action.Platform.ContainerImage
	switch {
	case name == "":
		return nil
	case e.runner.opt.Images == nil:
		return &action.UnsupportedError{Property: "container-image", Err: errors.New("this machine runs no actions in images")}
	case e.action.WholeRoot:
		reason := "the input root is the root file system already"
		return &action.InvalidError{Field: "platform.container-image", Reason: reason}
	}
	e.image, err = e.runner.opt.Images.Use(ctx, name)
	return err
}

// chroot gives the input tree laid over the root that chrootRootDigest names.
func (e *execution) chroot(ctx context.Context, inputs *tree.Tree) (*tree.Tree, error) {
	text := e.action.Platform.ChrootRoot
	if text == "" {
		return inputs, nil
	}
	sum, err := digest.ParseString(e.action.Digest.Function(), text)
	if err != nil {
		return nil, &action.InvalidError{Field: "platform.chrootRootDigest", Reason: err.Error()}
	}
	below, err := e.load(ctx, sum)
	if err != nil {
		return nil, err
	}
	return tree.Merge(inputs, below)
}

// stageImage makes the layers of the image and, above them, those of the input tree at its place.
func (e *execution) stageImage(ctx context.Context) error {
	inputs, err := e.tree.Under(beside)
	if err != nil {
		return err
	}
	if e.root, err = e.runner.stager.Stage(ctx, inputs, modesOf(e.action)); err != nil {
		return err
	}
	e.base, err = e.runner.stager.Stage(ctx, e.image.Tree, stage.Writable)
	return err
}

// inImage changes a run's description to one in the image.
func (e *execution) inImage(s *sandbox.Spec) {
	s.WholeRoot = true
	s.Lowers = slices.Concat(e.root.Lowers, e.base.Lowers)
	s.WorkingDirectory = path.Join(beside, s.WorkingDirectory)
	for _, list := range []*[]string{&s.Directories, &s.ReadOnly, &s.Writable} {
		moved := make([]string, len(*list))
		for i, d := range *list {
			moved[i] = path.Join(beside, d)
		}
		*list = moved
	}
	s.Env = over(s.Env, e.image.Env)
	s.UID, s.GID = int(e.image.UID), int(e.image.GID)
}

// over gives own and what of others it does not set itself.
func over(own, others []string) []string {
	set := make(map[string]bool, len(own))
	for _, v := range own {
		name, _, _ := strings.Cut(v, "=")
		set[name] = true
	}
	all := slices.Clone(own)
	for _, v := range others {
		if name, _, _ := strings.Cut(v, "="); !set[name] {
			all = append(all, v)
		}
	}
	return all
}

// inputLayers are the layers with the input tree at their top.
func (e *execution) inputLayers() []string {
	if e.image == nil {
		return e.root.Lowers
	}
	layers := make([]string, len(e.root.Lowers))
	for i, l := range e.root.Lowers {
		layers[i] = filepath.Join(l, beside)
	}
	return layers
}
