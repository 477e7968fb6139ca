package image

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// recordFormat changes when the same image would give another root.
const recordFormat = 1

// record is what is remembered of an import. It is a hint: whether the root is still in the store is
// looked up on use.
type record struct {
	Format   int      `json:"format"`
	Root     string   `json:"root"` // hash of its Directory
	Size     int64    `json:"size"`
	Env      []string `json:"env"`
	UID, GID uint32
}

func (c *Catalog) path(pin v1.Hash) string {
	return filepath.Join(c.options.Dir, pin.Hex+"-"+runtime.GOARCH+".json")
}

// read gives the record of an image; nil when there is none that can be used.
func (c *Catalog) read(pin v1.Hash) *record {
	data, err := os.ReadFile(c.path(pin))
	if err != nil {
		return nil
	}
	var r record
	if json.Unmarshal(data, &r) != nil || r.Format != recordFormat {
		return nil
	}
	return &r
}

// write remembers an import, whole or not at all.
func (c *Catalog) write(pin v1.Hash, r *record) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = replace(c.path(pin), data)
	}
	if err != nil {
		return fmt.Errorf("%w: remember it: %w", errStore, err)
	}
	return nil
}

func replace(path string, data []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), "new-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // in vain once it is renamed
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
