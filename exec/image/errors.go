package image

import (
	"errors"
	"fmt"
)

// The kinds of errors callers tell apart.
var (
	// ErrReference means that a property is no reference to an image.
	ErrReference = errors.New("invalid image reference")
	// ErrFloating means that a reference names a tag and no digest, so that it may mean another image tomorrow.
	ErrFloating = errors.New("image is not pinned by digest")
	// ErrForbidden means that the configuration does not let this image in.
	ErrForbidden = errors.New("image is not allowed")
	// ErrNotFound means that its registry or layout does not have the image, or a part of it.
	ErrNotFound = errors.New("image not found")
	// ErrUnreachable means that the registry did not answer, or not in time; another try may succeed.
	ErrUnreachable = errors.New("registry is unreachable")
	// ErrCorrupt means that a part of the image is not what its digest or its format says.
	ErrCorrupt = errors.New("image is corrupt")
	// ErrTooLarge means that a bound was reached.
	ErrTooLarge = errors.New("image is too large")
	// ErrUnsuitable means that the image is for other machines.
	ErrUnsuitable = errors.New("image does not suit this machine")
	// ErrClosed means that the Catalog was closed.
	ErrClosed = errors.New("image catalog is closed")
)

// Error tells which image could not be used, and why.
type Error struct {
	Image string // as the action named it
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("container-image %s: %v", e.Image, e.Err) }

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }
