package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// blob is one file the action wrote. digest is set by ingest.
type blob struct {
	rel        string
	executable bool
	digest     digest.Digest
}

// ingest hands the files to the store, a bounded number at a time. The first error ends it.
func (c *collector) ingest(ctx context.Context, blobs []*blob) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan *blob)
	var wg sync.WaitGroup
	for range min(c.limits.Parallel, len(blobs)) {
		wg.Go(func() {
			for b := range next {
				d, err := c.blobs.PutFile(ctx, c.fn, filepath.Join(c.view.dir, filepath.FromSlash(b.rel)))
				if err != nil {
					cancel(fmt.Errorf("store output file %q: %w", b.rel, err))
					continue
				}
				b.digest = d
			}
		})
	}
	for _, b := range blobs {
		if ctx.Err() != nil {
			break
		}
		next <- b
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// restore puts back the unchanged input files that the answer refers to and the store lost meanwhile:
// the layers the action ran on still have them.
func (c *collector) restore(ctx context.Context, used map[digest.Digest]string) error {
	ds := make([]digest.Digest, 0, len(used))
	for d := range used {
		ds = append(ds, d)
	}
	missing, err := c.blobs.Missing(ctx, ds)
	if err != nil {
		return fmt.Errorf("look for unchanged files: %w", err)
	}
	var lost []digest.Digest
	for i, d := range missing {
		got, err := c.restoreOne(ctx, used[d], i)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && got != d) {
			lost = append(lost, d)
		} else if err != nil {
			return fmt.Errorf("restore unchanged file %q: %w", used[d], err)
		}
	}
	if len(lost) > 0 {
		return fmt.Errorf("restore unchanged files: %w", &tree.MissingError{Digests: lost})
	}
	return nil
}

// restoreOne copies the file at rel out of the layers and hands the copy to the store, which may
// consume it.
func (c *collector) restoreOne(ctx context.Context, rel string, i int) (digest.Digest, error) {
	for _, lower := range c.source.Lowers {
		path := filepath.Join(c.source.Scratch, "restored-"+strconv.Itoa(i))
		err := copyOut(lower, filepath.FromSlash(rel), path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return digest.Digest{}, err
		}
		d, err := c.blobs.PutFile(ctx, c.fn, path)
		_ = os.Remove(path) // it may have been moved
		return d, err
	}
	return digest.Digest{}, fs.ErrNotExist
}

func copyOut(lower, rel, path string) error {
	root, err := os.OpenRoot(lower)
	if err != nil {
		return err
	}
	defer root.Close()
	in, err := root.Open(rel)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
