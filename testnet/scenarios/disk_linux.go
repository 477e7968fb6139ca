package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// rots changes the outputs of samples where a node keeps them: in the middle, in every file of the store that has one.
func (w *World) rots(_ context.Context, step scenario.Step) ([]string, error) {
	n, err := w.node(step.Names[0])
	if err != nil {
		return nil, err
	}
	samples, err := parseSamples(step.Rest)
	if err != nil {
		return nil, err
	}
	for _, s := range samples {
		found := false
		err := filepath.WalkDir(filepath.Join(n.Dir(), "cache", "store"), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			spoilt, err := spoil(path, s.Content())
			found = found || spoilt
			return err
		})
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, fmt.Errorf("%s has no output of %s", n.Name, s.Name)
		}
	}
	return nil, nil
}

// spoil changes the byte in the middle of content where it stands in a file, and reports whether it does.
func spoil(path string, content []byte) (bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	at := bytes.Index(data, content)
	if at < 0 {
		return false, nil
	}
	at += len(content) / 2
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = file.Close() }() // what matters has been written then
	_, err = file.WriteAt([]byte{data[at] ^ 1}, int64(at))
	return true, err
}
