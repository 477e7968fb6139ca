package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// File is the name of the control socket in the node's runtime directory.
const File = "control.sock"

// longestPath is what a socket address holds on every system, the final zero byte included: 104
// bytes on macOS, 108 on Linux.
const longestPath = 103

// ErrAnswered means that a process listens on the socket already.
var ErrAnswered = errors.New("another process answers on this socket")

// ListenUnix listens on a unix socket that only this user can open. Missing directories are made, with
// mode 0700. A socket file nobody listens on is replaced. Errors: ErrAnswered.
func ListenUnix(path string) (net.Listener, error) {
	if len(path) > longestPath {
		return nil, fmt.Errorf("socket %s: path has %d bytes, at most %d; choose a shorter dir.runtime", path, len(path), longestPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := clear(path); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return listener, nil
}

// clear removes a socket file that is left over; anything else at path is an error.
func clear(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return errors.New("something that is no socket has this name")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return ErrAnswered
	}
	return os.Remove(path)
}
