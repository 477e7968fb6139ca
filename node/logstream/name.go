package logstream

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

const (
	segment   = "logstreams" // what a stream's name has before its id
	uploads   = "uploads"    // begins the names of blobs to write, which may end in anything
	idSize    = 32           // hexadecimal digits of an id and of a write token
	maxParent = 512          // bytes
)

// IsName reports whether a resource name has the form of a stream's public or write name:
// {parent}/logstreams/{id} or {parent}/logstreams/{id}/{token}, where an empty parent goes with its slash. No name of a
// blob has it. Whether there is such a stream is another question: an id that was never given is not found.
func IsName(name string) bool {
	parts := strings.Split(name, "/")
	at := len(parts) - 2
	if at >= 1 && parts[at] != segment {
		at-- // a write name has a token more
	}
	if at < 0 || parts[at] != segment || slices.Contains(parts[:at], uploads) {
		return false
	}
	return !slices.Contains(parts[at+1:], "")
}

// public gives the public name of a name that IsName accepts, and whether it was a write name.
func public(name string) (string, bool) {
	before := name[:strings.LastIndexByte(name, '/')]
	if strings.HasSuffix("/"+before, "/"+segment) {
		return name, false
	}
	return before, true
}

func newID() string {
	var random [idSize / 2]byte
	rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// checkParent refuses what cannot begin a resource name. Nothing can, as an empty instance name can.
func checkParent(parent string) error {
	if parent == "" {
		return nil
	}
	if len(parent) > maxParent {
		return fmt.Errorf("parent of %d bytes, want at most %d: %w", len(parent), maxParent, ErrName)
	}
	for _, part := range strings.Split(parent, "/") {
		if part == "" || part == segment || strings.ContainsAny(part, "\x00\n") {
			return fmt.Errorf("parent %q: %w", parent, ErrName)
		}
	}
	return nil
}
