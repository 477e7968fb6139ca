package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ballast is the file that fills a disk.
const ballast = "ballast"

// mount gives the machine a disk of its own.
func (n *Node) mount(size int64) error {
	if err := unix.Mount("lab", n.dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", size)); err != nil {
		return fmt.Errorf("disk of %s: %w", n.Name, err)
	}
	return nil
}

// unmount takes the disks of a lab's machines away. Their nodes have ended, or end with the mount.
func unmount(dir string) {
	nodes, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, node := range nodes {
		_ = unix.Unmount(node, unix.MNT_DETACH) // most are no mounts
	}
}

// Fill writes to the machine's own disk until nothing more goes in; Empty makes room again.
func (n *Node) Fill() (err error) {
	f, err := os.Create(filepath.Join(n.dir, ballast))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for zeros := make([]byte, 1<<20); ; {
		_, err := f.Write(zeros)
		if errors.Is(err, unix.ENOSPC) {
			return nil
		}
		if size, _ := f.Seek(0, io.SeekCurrent); err == nil && size > 4<<30 {
			return fmt.Errorf("%s has no small disk of its own", n.Name)
		}
		if err != nil {
			return err
		}
	}
}

// Empty ends Fill.
func (n *Node) Empty() error { return os.Remove(filepath.Join(n.dir, ballast)) }
