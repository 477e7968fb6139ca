package trash

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Bin is a directory of things to be removed, which it owns.
type Bin struct {
	dir      string
	sequence atomic.Uint64
	wake     chan struct{}
	stop     chan struct{}
	once     sync.Once
	done     sync.WaitGroup
	emptying sync.Mutex // one removal at a time, so that Empty returns only when all is gone
}

// Open makes dir when it is absent, and begins to remove what is in it.
func Open(dir string) (*Bin, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open trash: %w", err)
	}
	b := &Bin{dir: dir, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	// Names must not collide with those an earlier process left.
	b.sequence.Store(uint64(time.Now().UnixNano()))
	b.wake <- struct{}{}
	b.done.Go(b.run)
	return b, nil
}

// Throw takes path away; it must be on the same file system as the Bin. A path that is not there is
// thrown already.
func (b *Bin) Throw(path string) error {
	err := os.Rename(path, filepath.Join(b.dir, strconv.FormatUint(b.sequence.Add(1), 36)))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("throw away: %w", err)
	}
	select {
	case b.wake <- struct{}{}:
	default: // awake already, and looks again before it sleeps
	}
	return nil
}

// Empty removes everything and returns when it is gone, or the Bin is closed.
func (b *Bin) Empty() {
	b.emptying.Lock()
	defer b.emptying.Unlock()
	list, err := os.ReadDir(b.dir)
	if err != nil {
		return
	}
	for _, e := range list {
		select {
		case <-b.stop:
			return
		default:
			remove(filepath.Join(b.dir, e.Name()))
		}
	}
}

// Close ends the removal after the tree under way and waits for it. Idempotent.
func (b *Bin) Close() {
	b.once.Do(func() { close(b.stop) })
	b.done.Wait()
}

func (b *Bin) run() {
	for {
		select {
		case <-b.stop:
			return
		case <-b.wake:
			b.Empty()
		}
	}
}

// remove deletes a tree, opening its directories for their owner where needed.
func remove(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() && err == nil {
			// Called before the directory is read, and only for real directories.
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
