package main

import (
	"fmt"
	"path/filepath"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// initVerb is `buildmesh init`.
type initVerb struct {
	Name    string `placeholder:"NAME" help:"Name of the mesh, which strangers may see (default: the node's name)."`
	RootKey string `placeholder:"FILE" help:"Write the root key to this new file, to be kept offline (default: the node's state directory)."`
}

// Run founds a mesh.
func (i *initVerb) Run(v *verbContext) error {
	path, err := wholePath(i.RootKey)
	if err != nil {
		return err
	}
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Mesh.Found(v.ctx, &controlv1.FoundRequest{Name: i.Name, RootKey: path})
	if err != nil {
		return plain(err)
	}
	_, err = fmt.Fprintf(v.out, "founded mesh %s; its root key is %s\nKeep it: it is needed to revoke members and to appoint stewards. Bring others in with: buildmesh invite\n",
		answer.Mesh, answer.RootKey)
	return err
}

// wholePath is a path as the node, which stands in another directory, understands it; empty stays empty.
func wholePath(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return "", usageError{err}
	}
	return whole, nil
}
