package main

import (
	"errors"
	"path/filepath"

	"github.com/buildmesh/buildmesh/node/control"
	"google.golang.org/grpc/status"
)

// dial connects to the running node the configuration describes.
func (v *verbContext) dial() (*control.Client, error) {
	c, err := v.load()
	if err != nil {
		return nil, err
	}
	return control.Dial(v.ctx, filepath.Join(c.Dir.Runtime, control.File))
}

// plain is a node's answer without the wire's wrapping.
func plain(err error) error {
	if s, ok := status.FromError(err); ok && err != nil {
		return errors.New(s.Message())
	}
	return err
}
