package collect

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// isWhiteout recognises the kernel's mark of a removed name: a character device 0/0.
func isWhiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

// whiteoutFile recognises the other mark: an empty file with an attribute.
func whiteoutFile(path string) (bool, error) {
	_, found, err := attribute(path, "overlay.whiteout")
	return found, err
}

// isOpaque tells whether the directory at path hides what is beneath it.
func isOpaque(path string) (bool, error) {
	value, found, err := attribute(path, "overlay.opaque")
	if err != nil || (found && value == "y") {
		return found, err
	}
	// The sandbox forbids redirects, so that a renamed directory is copied. One here would be shown
	// with the wrong content, silently.
	if to, found, err := attribute(path, "overlay.redirect"); err != nil || found {
		return false, errors.Join(err, &OutputError{Path: path, Reason: "is redirected to " + to + " by the overlay"})
	}
	return false, nil
}

// attribute reads an extended attribute of the overlay, in the namespace it uses for unprivileged
// mounts or the one for privileged mounts.
func attribute(path, name string) (value string, found bool, err error) {
	var buf [256]byte
	for _, space := range []string{"user.", "trusted."} {
		n, err := unix.Lgetxattr(path, space+name, buf[:])
		switch {
		case err == nil:
			return string(buf[:n]), true, nil
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM):
			continue
		default:
			return "", false, &os.PathError{Op: "lgetxattr", Path: path, Err: err}
		}
	}
	return "", false, nil
}
