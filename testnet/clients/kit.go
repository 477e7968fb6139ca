//go:build unix

package clients

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Kit is what the script `install` made.
type Kit struct {
	dir  string // the kit's own directory
	here string // this package's directory
}

// Find returns the installed kit, or skips the test with the reason why there is none. In CI it fails it.
func Find(t testing.TB) Kit {
	t.Helper()
	dir := os.Getenv("BUILDMESH_CLIENTS")
	if dir == "" {
		dir = "/var/cache/buildmesh"
	}
	_, file, _, _ := runtime.Caller(0)
	kit := Kit{dir: dir, here: filepath.Dir(file)}
	for _, part := range []string{"root", "src", "rules_cc"} {
		if _, err := os.Stat(filepath.Join(dir, part+".complete")); err == nil {
			continue
		}
		reason := fmt.Sprintf("the real clients are not installed (no %s in %s): run testnet/clients/install as root", part, dir)
		if os.Getenv("CI") != "" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	if os.Geteuid() != 0 {
		t.Skip("the real clients' root filesystem can only be entered by root")
	}
	return kit
}

// Place is a root filesystem in which a node and its clients run together.
type Place struct {
	Name string
	kit  Kit
	root string // empty: the machine's own
	Dir  string // scratch directory, as seen from outside

	begin func(*exec.Cmd) error // starts commands of clients; nil: as usual
}

// Host is the machine's own root filesystem.
func (k Kit) Host(t testing.TB) Place {
	return Place{Name: "this machine", kit: k, Dir: scratch(t)}
}

// Root is the Debian testing root.
func (k Kit) Root(t testing.TB) Place {
	return Place{Name: "Debian testing", kit: k, root: filepath.Join(k.dir, "root"), Dir: scratch(t)}
}

// scratch is a directory on disk, not on a memory file system: nodes measure free disk and make overlays in it.
func scratch(t testing.TB) string {
	t.Helper()
	base := "/var/tmp"
	dir, err := os.MkdirTemp(base, "buildmesh-clients-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Bazel makes its output directories read-only.
		_ = exec.Command("chmod", "-R", "u+w", dir).Run()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something still holds the scratch directory: %v", err)
		}
	})
	return dir
}

// Inside translates a path below Dir to the path that commands of this place see.
func (p Place) Inside(path string) string {
	if p.root == "" {
		return path
	}
	relative, err := filepath.Rel(p.Dir, path)
	if err != nil {
		panic(err) // a programmer's error: the path is not below Dir
	}
	return filepath.Join("/w", relative)
}

// Source is the path, as seen inside, of an unpacked source package.
func (p Place) Source(name string) string {
	if p.root == "" {
		return filepath.Join(p.kit.dir, "src", name)
	}
	return filepath.Join("/w/src", name)
}

// Command prepares a command that runs in this place, in the directory dir (as seen from outside).
func (p Place) Command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	if p.root == "" {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		return cmd
	}
	outer := []string{p.root, p.Dir, filepath.Join(p.kit.dir, "src"), "env", "-C", p.Inside(dir), name}
	return exec.CommandContext(ctx, filepath.Join(p.kit.here, "enter"), append(outer, args...)...)
}

// start starts a command of a client.
func (p Place) start(cmd *exec.Cmd) error {
	if p.begin != nil {
		return p.begin(cmd)
	}
	return cmd.Start()
}

// Project copies the C++ project into the place and returns its directory, as seen from outside.
func (p Place) Project(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(p.Dir, "project")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(p.kit.here, "project"))); err != nil {
		t.Fatal(err)
	}
	return dir
}
