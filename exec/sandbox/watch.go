//go:build linux || darwin || windows

package sandbox

import (
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The time between two looks at what a run has written: as long as the fastest disk takes to fill half of what is left,
// within bounds. A run can go beyond a limit by what it can write in the shortest pause; a single file is stopped by the
// kernel at the limit.
const (
	watchPause  = 50 * time.Millisecond
	longPause   = time.Second
	fastestDisk = 8 << 30 // bytes a second
)

// diskShare bounds the part of the time that is spent on walking an upper directory: one part in this many.
const diskShare = 20

// diskWatch looks at the upper directory of a run until it is stopped.
type diskWatch struct {
	upper    string
	limit    int64 // bytes of the upper directory, 0 = unlimited
	minFree  int64 // bytes that must stay free on the file system
	exceeded chan struct{}
	stop     chan struct{}
	done     chan struct{}
	bytes    int64 // as last seen; read after done
	room     int64 // bytes until the nearest limit, as last seen
}

// startDiskWatch starts the watch; its owner calls end.
func startDiskWatch(upper string, limit, minFree int64) *diskWatch {
	w := &diskWatch{upper: upper, limit: limit, minFree: minFree,
		exceeded: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go w.loop()
	return w
}

func (w *diskWatch) loop() {
	defer close(w.done)
	timer := time.NewTimer(watchPause)
	defer timer.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-timer.C:
		}
		began := time.Now()
		if w.beyond() {
			w.exceeded <- struct{}{}
			return
		}
		timer.Reset(max(w.pause(), diskShare*time.Since(began)))
	}
}

// beyond reports whether a limit is exceeded.
func (w *diskWatch) beyond() bool {
	w.room = math.MaxInt64
	if free, _, err := diskBytes(w.upper); err == nil {
		w.room = free - w.minFree
	}
	if w.limit > 0 && w.room >= 0 {
		w.bytes = diskUsage(w.upper, w.limit)
		w.room = min(w.room, w.limit-w.bytes)
	}
	return w.room < 0
}

// pause is how long nobody needs to look.
func (w *diskWatch) pause() time.Duration {
	return min(max(watchPause, time.Duration(float64(w.room)/2/fastestDisk*float64(time.Second))), longPause)
}

// end stops the watch and gives the bytes last seen.
func (w *diskWatch) end() int64 {
	close(w.stop)
	<-w.done
	return w.bytes
}

// inodeBytes is what every file or directory counts beside its content, so that millions of empty files count too.
const inodeBytes = 1024

// diskUsage sums the space of a tree, and stops adding beyond enough. What vanishes or cannot be read in the meantime
// is not counted: while an action runs, a node that is not root cannot look into directories that the action has closed
// to its own user. Until the end, only MinFree and the limit of a single file hold for these. Links are not followed.
func diskUsage(dir string, enough int64) int64 { return sumTree(dir, enough, false) }

// finalUsage is diskUsage when nothing runs any more. It opens closed directories for a moment.
func finalUsage(dir string, enough int64) int64 { return sumTree(dir, enough, true) }

// defaultMinFree is MinFree on a disk of total bytes where nothing else is said: a small disk is of use in spite of it.
func defaultMinFree(total int64) int64 { return min(largestMinFree, total/20) }

// setMinFree gives MinFree its default.
func (o *Options) setMinFree() error {
	if o.MinFree != 0 {
		return nil
	}
	_, total, err := diskBytes(o.Dir)
	if err != nil {
		return fmt.Errorf("open sandbox: measure disk: %w", err)
	}
	o.MinFree = defaultMinFree(total)
	return nil
}

// spaceLacked reports whether less than minFree is left on the file system of a run. It is for the moments between the last
// look and the end.
func spaceLacked(upper string, minFree int64) bool {
	free, _, err := diskBytes(upper)
	return err == nil && free < minFree
}

func sumTree(dir string, enough int64, open bool) int64 {
	var sum int64
	closed := map[string]fs.FileMode{}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, infoErr := entry.Info(); open && entry.IsDir() && infoErr == nil && info.Mode()&0o500 != 0o500 {
			closed[path] = info.Mode() // WalkDir calls before it reads the directory
			_ = os.Chmod(path, info.Mode()|0o700)
		}
		if sum > enough {
			return fs.SkipAll
		}
		sum += inodeBytes
		if info, err := entry.Info(); err == nil && entry.Type().IsRegular() {
			sum += allocatedBytes(info)
		}
		return nil
	})
	for _, path := range slices.Backward(slices.Sorted(maps.Keys(closed))) {
		_ = os.Chmod(path, closed[path])
	}
	return sum
}
