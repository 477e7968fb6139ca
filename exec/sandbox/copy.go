package sandbox

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// copyLayers makes target a private copy of input layers, topmost first, that belongs to the guest. A file of a layer
// replaces that of the layers below it; directories are joined. Nothing is hardlinked: the action may write to the copy.
func copyLayers(layers []string, target string, guest owner) error {
	for _, layer := range slices.Backward(layers) {
		if err := copyLayer(layer, target, guest); err != nil {
			return fmt.Errorf("copy inputs: %w", err)
		}
	}
	return nil
}

func copyLayer(layer, target string, guest owner) error {
	return filepath.WalkDir(layer, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(layer, path)
		if err != nil || rel == "." {
			return err
		}
		to := filepath.Join(target, rel)
		switch {
		case entry.IsDir():
			if err = os.Mkdir(to, 0o755); os.IsExist(err) {
				err = nil
			}
		case entry.Type()&fs.ModeSymlink != 0:
			var link string
			if link, err = os.Readlink(path); err == nil {
				_ = os.Remove(to)
				err = os.Symlink(link, to)
			}
		case entry.Type().IsRegular():
			err = copyFile(path, to, entry)
		}
		if err == nil && guest.need {
			err = os.Lchown(to, guest.uid, guest.gid)
		}
		return err
	})
}

// copyFile copies one file with its mode and time, over one of a lower layer.
func copyFile(from, to string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	_ = os.Remove(to)
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(to, info.Mode().Perm()|copiedMode)
	}
	if err == nil {
		err = os.Chtimes(to, info.ModTime(), info.ModTime())
	}
	return err
}
