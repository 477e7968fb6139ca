package fingerprint

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// databases are where package managers say what is installed. All but dpkg's are taken as they are.
var databases = []struct{ name, path string }{
	{"rpm", "/usr/lib/sysimage/rpm/rpmdb.sqlite"}, {"rpm", "/var/lib/rpm/rpmdb.sqlite"}, {"rpm", "/var/lib/rpm/Packages"},
	{"apk", "/lib/apk/db/installed"}, {"release", "/usr/lib/os-release"},
}

func (s *survey) packages() error {
	installed, err := dpkg(s.path("/var/lib/dpkg/status"))
	if err != nil {
		return err
	}
	if installed != "" {
		s.add("packages dpkg", installed)
	}
	for _, d := range databases {
		value, err := s.identify(s.path(d.path), false)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.add("packages "+d.name+" "+d.path, value)
	}
	entries, err := os.ReadDir(s.path("/var/lib/pacman/local"))
	if err == nil { // pacman keeps one directory per package, named after it and its version
		s.add("packages pacman", hashNames(entries))
	}
	return nil
}

func hashNames(entries []fs.DirEntry) string {
	h := sha256.New()
	for _, e := range entries {
		fmt.Fprintln(h, e.Name())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// dpkg hashes name, version and architecture of what is installed, in sorted order: the file's own order, and what it
// says about packages that are removed, differ between equal machines. No file, no packages: empty.
func dpkg(status string) (string, error) {
	f, err := os.Open(status)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines, err := parseStatus(f)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", status, err)
	}
	slices.Sort(lines)
	hash := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return fmt.Sprintf("%s (%d packages)", hex.EncodeToString(hash[:]), len(lines)), nil
}

// parseStatus reads stanzas of "Field: value" lines, separated by empty lines (deb-control(5)).
func parseStatus(r io.Reader) ([]string, error) {
	var lines []string
	fields := map[string]string{}
	flush := func() {
		if strings.HasSuffix(fields["Status"], " installed") {
			lines = append(lines, fields["Package"]+" "+fields["Version"]+" "+fields["Architecture"])
		}
		clear(fields)
	}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 64<<10), 8<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if line == "" {
			flush()
			continue
		}
		if name, value, ok := strings.Cut(line, ": "); ok && line[0] != ' ' {
			switch name {
			case "Package", "Status", "Version", "Architecture":
				fields[name] = value
			}
		}
	}
	flush()
	return lines, scanner.Err()
}

// programDirs are the directories of the search path an action has.
var programDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// programWords are the names of tools whose output ends up in results. A program counts if its name, without a leading
// machine triplet and a trailing version, is one of them.
var programWords = map[string]bool{
	"gcc": true, "g++": true, "cc": true, "c++": true, "cpp": true, "c89": true, "c99": true, "clang": true, "clang++": true,
	"clang-cpp": true, "gfortran": true, "ld": true, "ld.bfd": true, "ld.gold": true, "ld.lld": true, "lld": true, "gold": true,
	"mold": true, "as": true, "ar": true, "ranlib": true, "nm": true, "objcopy": true, "objdump": true, "strip": true,
	"gcc-ar": true, "gcc-nm": true, "gcc-ranlib": true, "llvm-ar": true, "dwp": true, "gcov": true, "rustc": true, "cargo": true,
	"go": true, "gofmt": true, "java": true, "javac": true, "jar": true, "ghc": true, "node": true, "ruby": true, "perl": true,
	"python": true, "bash": true, "sh": true, "dash": true, "awk": true, "gawk": true, "mawk": true, "sed": true, "m4": true,
	"bison": true, "flex": true, "protoc": true, "make": true, "cmake": true, "ninja": true, "patch": true, "tar": true,
	"gzip": true, "xz": true, "zip": true, "unzip": true, "nasm": true, "yasm": true, "swiftc": true, "ocamlopt": true,
}

// isTool reports whether a file of this name is a tool.
func isTool(name string) bool {
	name = strings.TrimRight(name, "0123456789.")
	name = strings.TrimSuffix(name, "-")
	if programWords[name] {
		return true
	}
	for i := range len(name) { // x86_64-linux-gnu-gcc
		if name[i] == '-' && programWords[name[i+1:]] {
			return true
		}
	}
	return false
}

func (s *survey) programs() error {
	for _, dir := range programDirs {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if isTool(e.Name()) {
				if err := s.file("program", s.path(filepath.Join(dir, e.Name()))); err != nil {
					return err
				}
			}
		}
	}
	return s.globs("program", "/usr/lib/gcc/*/*/cc1", "/usr/lib/gcc/*/*/cc1plus", "/usr/lib/gcc/*/*/collect2",
		"/usr/lib/gcc/*/*/lto1", "/usr/libexec/gcc/*/*/cc1", "/usr/libexec/gcc/*/*/cc1plus",
		"/usr/libexec/gcc/*/*/collect2", "/usr/libexec/gcc/*/*/lto1", "/usr/lib/llvm-*/bin/clang", "/usr/lib/llvm-*/bin/lld")
}

// libraries are what every program is linked to, and the start of every program.
func (s *survey) libraries() error {
	for _, dir := range []string{"/lib", "/lib64", "/lib/*-linux-gnu*", "/usr/lib", "/usr/lib64", "/usr/lib/*-linux-gnu*"} {
		if err := s.globs("library", dir+"/ld-linux*.so*", dir+"/ld-musl-*", dir+"/libc.so*", dir+"/libc.a", dir+"/libm.so.6",
			dir+"/libstdc++.so*", dir+"/libgcc_s.so*", dir+"/libc++.so*", dir+"/crt1.o"); err != nil {
			return err
		}
	}
	return s.globs("library", "/usr/lib/gcc/*/*/libstdc++.a", "/usr/lib/gcc/*/*/libgcc.a", "/usr/lib/gcc/*/*/crtbegin.o")
}

func (s *survey) globs(kind string, patterns ...string) error {
	for _, pattern := range patterns {
		names, err := filepath.Glob(s.path(pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := s.file(kind, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// file adds one file under the path its links lead to. A link that leads nowhere is no part of what an action sees.
func (s *survey) file(kind, path string) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name := "/" + strings.TrimPrefix(strings.TrimPrefix(path, s.options.Root), "/")
	if resolved != path {
		target := "/" + strings.TrimPrefix(strings.TrimPrefix(resolved, s.options.Root), "/")
		s.add("link "+name, target)
		name = target
	}
	if s.seen[resolved] {
		return nil
	}
	s.seen[resolved] = true
	value, err := s.identify(resolved, true)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errIrregular) { // an action cannot read it either
		return nil
	}
	if err != nil {
		return err
	}
	s.add(kind+" "+name, value)
	return nil
}

// unmanagedDirs hold what was installed by hand.
var unmanagedDirs = []string{"/usr/local/bin", "/usr/local/sbin", "/usr/local/lib", "/usr/local/lib64", "/usr/local/include", "/usr/local/share", "/opt", "/opt/*", "/opt/*/bin", "/opt/*/lib"}

func (s *survey) unmanaged() error {
	for _, pattern := range unmanagedDirs {
		dirs, err := filepath.Glob(s.path(pattern))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) == 0 {
				continue // a file, or closed to actions as well
			}
			h := sha256.New()
			for _, e := range entries {
				if info, err := e.Info(); err == nil {
					size := info.Size()
					if info.IsDir() {
						size = 0 // how a directory is stored, not what is in it
					}
					fmt.Fprintf(h, "%q %d %v\n", e.Name(), size, info.Mode())
				}
			}
			s.add("unmanaged /"+strings.TrimPrefix(strings.TrimPrefix(dir, s.options.Root), "/"), hex.EncodeToString(h.Sum(nil)))
		}
	}
	return nil
}

// etc hashes the public copy of /etc. Java's key store is left out: it holds the dates on which it was made.
func (s *survey) etc() error {
	if s.options.Etc == "" {
		return nil
	}
	h := sha256.New()
	err := filepath.WalkDir(s.options.Etc, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.options.Etc, path)
		if err != nil || e.IsDir() || strings.HasSuffix(rel, "java/cacerts") {
			return err
		}
		var value string
		if e.Type()&fs.ModeSymlink != 0 {
			value, err = os.Readlink(path)
		} else {
			value, err = s.identify(path, false)
		}
		fmt.Fprintf(h, "%q %q\n", rel, value)
		return err
	})
	if err != nil {
		return err
	}
	s.add("etc", hex.EncodeToString(h.Sum(nil)))
	return nil
}
