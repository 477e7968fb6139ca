package wrong

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// workspace is the directory of one execution.
type workspace struct {
	server *Server
	action *action
	base   string // all below is in it
	root   string // the input root
	dir    string // where the command starts
	keep   bool   // of LeftoversStay and SecondAttemptClobbers alone
}

// workspace makes the input root of an action.
func (s *Server) workspace(a *action) (*workspace, error) {
	w := &workspace{server: s, action: a}
	var err error
	switch {
	case s.has(LeftoversStay):
		w.keep, w.base = true, filepath.Join(s.temp, "left-"+a.root.Hex())
		err = os.MkdirAll(w.base, 0o755)
	case s.has(SecondAttemptClobbers):
		w.keep, w.base = true, filepath.Join(s.temp, "shared-"+a.digest.Hex())
		err = os.MkdirAll(w.base, 0o755)
	default:
		w.base, err = os.MkdirTemp(s.temp, "run")
	}
	if err != nil {
		return nil, err
	}
	w.root = filepath.Join(w.base, "root")
	if err := w.populate(); err != nil {
		w.remove()
		return nil, err
	}
	return w, nil
}

func (w *workspace) populate() error {
	s, c := w.server, w.action.command
	if err := w.directory(w.root, w.action.root); err != nil {
		return err
	}
	if w.dir = filepath.Join(w.root, c.WorkingDirectory); s.has(WorkingDirectoryIgnored) {
		w.dir = w.root
	}
	if s.has(RootBelow) {
		w.dir = filepath.Join(w.base, "beside")
	}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return err
	}
	for _, name := range s.outputs(c) {
		if s.has(NoOutputParents) {
			break
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(w.dir, name)), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// directory makes one directory of the input root and all below.
func (w *workspace) directory(at string, d digest.Digest) error {
	s, dir := w.server, w.action.dirs[d]
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	for _, f := range dir.GetFiles() {
		fd, err := digest.FromProto(d.Function(), f.Digest)
		if err != nil {
			return err
		}
		data, _ := s.get(fd) // examined when the action was loaded
		if len(data) == 0 && s.has(EmptyInputMissing) {
			continue
		}
		if err := w.file(filepath.Join(at, f.Name), data, f); err != nil && !s.has(UnsafeNamesAccepted) && !s.has(DuplicateNamesAccepted) {
			return err
		}
	}
	for _, y := range dir.GetSymlinks() {
		if filepath.IsAbs(y.Target) && s.has(AbsoluteSymlinksRefused) {
			return fmt.Errorf("symlink %s is absolute", y.Name)
		}
		if err := os.Symlink(y.Target, filepath.Join(at, y.Name)); err != nil && !w.keep && !s.has(UnsafeNamesAccepted) && !s.has(DuplicateNamesAccepted) && !s.has(DuplicatesInList) {
			return err
		}
	}
	for _, c := range dir.GetDirectories() {
		cd, err := digest.FromProto(d.Function(), c.Digest)
		if err != nil {
			return err
		}
		if err := w.directory(filepath.Join(at, c.Name), cd); err != nil && !s.has(UnsafeNamesAccepted) && !s.has(DuplicateNamesAccepted) {
			return err
		}
	}
	return nil
}

func (w *workspace) file(name string, data []byte, f *repb.FileNode) error {
	mode := fs.FileMode(0o644)
	if f.IsExecutable {
		mode = 0o755
	}
	syscall.ForkLock.RLock() // a command started meanwhile would hold the file open for writing, and it could not be run
	err := os.WriteFile(name, data, mode)
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	if mtime := f.GetNodeProperties().GetMtime(); mtime != nil && !w.server.has(InputMtimeIgnored) {
		return os.Chtimes(name, time.Time{}, mtime.AsTime())
	}
	return nil
}

// remove deletes the workspace. For InputsSpoilStore it first writes what became of the inputs
// back into the store.
func (w *workspace) remove() {
	if w.server.has(InputsSpoilStore) {
		w.spoil(w.root, w.action.root)
	}
	if !w.keep {
		_ = filepath.WalkDir(w.base, func(name string, e fs.DirEntry, err error) error { // what stays is in the temporary directory
			if err == nil && e.IsDir() {
				return os.Chmod(name, 0o755)
			}
			return nil
		})
		_ = os.RemoveAll(w.base)
	}
}

func (w *workspace) spoil(at string, d digest.Digest) {
	for _, f := range w.action.dirs[d].GetFiles() {
		fd, err := digest.FromProto(d.Function(), f.Digest)
		data, readErr := os.ReadFile(filepath.Join(at, f.Name))
		if err == nil && readErr == nil {
			w.server.put(fd, data)
		}
	}
	for _, c := range w.action.dirs[d].GetDirectories() {
		if cd, err := digest.FromProto(d.Function(), c.Digest); err == nil {
			w.spoil(filepath.Join(at, c.Name), cd)
		}
	}
}
