//go:build linux || darwin || windows

package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A search finds programs where the action's own words say, never where the node's own PATH would. Used where the kernel of
// the machine, not an init in a root of the action's own, starts the action.
type search struct {
	directory  string   // working directory, absolute; what a relative name starts from
	separators string   // characters that make a name a path: "/", or both slashes
	extensions []string // lower case with dot, of executable files; empty: the mode tells
	standard   string   // searched when the environment has no PATH
}

// find gives the absolute path of the program, or a *CommandError with ENOENT or EACCES.
func (s *search) find(name string, env []string) (string, error) {
	if name == "" {
		return "", &CommandError{Program: name, Err: syscall.ENOENT}
	}
	if strings.ContainsAny(name, s.separators) {
		path, err := s.try(s.absolute(name))
		if err != nil {
			return "", &CommandError{Program: name, Err: err}
		}
		return path, nil
	}
	list, found := lastValue(env, "PATH", len(s.extensions) > 0)
	if !found {
		list = s.standard
	}
	var result error = syscall.ENOENT
	for _, dir := range filepath.SplitList(list) {
		path, err := s.try(filepath.Join(s.absolute(dir), name))
		if err == nil {
			return path, nil
		}
		if err == syscall.EACCES {
			result = err
		}
	}
	return "", &CommandError{Program: name, Err: result}
}

func (s *search) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(s.directory, path)
}

// try tells whether path, or path with one of the extensions, is a program.
func (s *search) try(path string) (string, error) {
	if len(s.extensions) == 0 || slices.Contains(s.extensions, strings.ToLower(filepath.Ext(path))) {
		return path, s.executable(path)
	}
	var result error = syscall.ENOENT
	for _, extension := range s.extensions {
		err := s.executable(path + extension)
		if err == nil {
			return path + extension, nil
		}
		if err == syscall.EACCES {
			result = err
		}
	}
	return "", result
}

func (s *search) executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case os.IsPermission(err):
		return syscall.EACCES
	case err != nil:
		return syscall.ENOENT
	case !info.Mode().IsRegular():
		return syscall.EACCES
	case len(s.extensions) == 0 && info.Mode()&fs.ModePerm&0o111 == 0:
		return syscall.EACCES
	}
	return nil
}

// lastValue gives the value of a variable; where one stands twice, the last one, as programs of the machine do it.
func lastValue(env []string, name string, foldCase bool) (string, bool) {
	for _, e := range slices.Backward(env) {
		key, value, _ := strings.Cut(e, "=")
		if key == name || foldCase && strings.EqualFold(key, name) {
			return value, true
		}
	}
	return "", false
}

// withDefaults adds the variables of defaults (K=V) that env does not have. Case counts unless foldCase.
func withDefaults(env, defaults []string, foldCase bool) []string {
	env = slices.Clone(env)
	for _, d := range defaults {
		key, _, _ := strings.Cut(d, "=")
		if _, found := lastValue(env, key, foldCase); !found {
			env = append(env, d)
		}
	}
	return env
}
