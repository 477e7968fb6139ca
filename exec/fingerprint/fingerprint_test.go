package fingerprint

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tree makes a small machine.
func tree(t *testing.T) Options {
	t.Helper()
	root := t.TempDir()
	o := Options{Root: root, Etc: filepath.Join(root, "etc-shown"), ISA: []string{"x86-64", "x86-64-v2"}}
	for name, content := range map[string]string{
		"usr/bin/x86_64-linux-gnu-gcc-12": "compiler", "usr/bin/ls": "no tool", "usr/bin/python3.11": "interpreter",
		"usr/lib/x86_64-linux-gnu/libc.so.6": "library", "usr/lib/gcc/x86_64-linux-gnu/12/cc1": "inner compiler",
		"usr/local/bin/mytool": "by hand", "usr/lib/os-release": "ID=debian",
		"var/lib/dpkg/status": "Package: b\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\nDescription: x\n Version: 9\n\n" +
			"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n",
		"etc-shown/ld.so.conf": "conf", "etc-shown/ssl/certs/java/cacerts": "made today",
	} {
		put(t, root, name, content)
	}
	if err := os.Symlink("x86_64-linux-gnu-gcc-12", filepath.Join(root, "usr/bin/gcc")); err != nil {
		t.Fatal(err)
	}
	return o
}

func put(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(path)
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func compute(t *testing.T, o Options) Fingerprint {
	t.Helper()
	f, err := Compute(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestChange makes one change at a time to equal machines: those that matter change the Sum, others do not.
func TestChange(t *testing.T) {
	want := compute(t, tree(t))
	for _, change := range []struct {
		name    string
		make    func(*Options)
		matters bool
	}{
		{"nothing", func(*Options) {}, false},
		{"compiler", func(o *Options) { put(t, o.Root, "usr/bin/x86_64-linux-gnu-gcc-12", "Compiler") }, true},
		{"inner compiler", func(o *Options) { put(t, o.Root, "usr/lib/gcc/x86_64-linux-gnu/12/cc1", "other") }, true},
		{"another compiler", func(o *Options) { put(t, o.Root, "usr/bin/clang", "clang") }, true},
		{"libc", func(o *Options) { put(t, o.Root, "usr/lib/x86_64-linux-gnu/libc.so.6", "other") }, true},
		{"link", func(o *Options) {
			_ = os.Remove(filepath.Join(o.Root, "usr/bin/gcc"))
			_ = os.Symlink("python3.11", filepath.Join(o.Root, "usr/bin/gcc"))
		}, true},
		{"tool by hand", func(o *Options) { put(t, o.Root, "usr/local/bin/mytool", "longer by hand") }, true},
		{"etc", func(o *Options) { put(t, o.Root, "etc-shown/ld.so.conf", "other") }, true},
		{"isa", func(o *Options) { o.ISA = []string{"x86-64"} }, true},
		{"order of isa", func(o *Options) { o.ISA = []string{"x86-64-v2", "x86-64"} }, false},
		{"package", func(o *Options) {
			put(t, o.Root, "var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 2\nArchitecture: all\n")
		}, true},
		{"order of packages", func(o *Options) {
			put(t, o.Root, "var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"+
				"Package: b\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\n")
		}, false},
		{"another program", func(o *Options) { put(t, o.Root, "usr/bin/ls", "list") }, false},
		{"key store", func(o *Options) { put(t, o.Root, "etc-shown/ssl/certs/java/cacerts", "made tomorrow") }, false},
	} {
		o := tree(t)
		change.make(&o)
		if got := compute(t, o); (got.Sum != want.Sum) != change.matters {
			t.Errorf("%s: changed %v, want %v\n%s\n%s", change.name, got.Sum != want.Sum, change.matters,
				strings.Join(got.Explain(), "\n"), strings.Join(want.Explain(), "\n"))
		}
	}
}

func TestCacheIsUsedAndNotTrusted(t *testing.T) {
	o := tree(t)
	o.Cache = filepath.Join(t.TempDir(), "cache")
	first := compute(t, o)
	if compute(t, o).Sum != first.Sum {
		t.Error("second computation differs")
	}
	data, err := os.ReadFile(o.Cache)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Cache, []byte(strings.ReplaceAll(string(data), "sha256 ", "sha256 0")), 0o600); err != nil {
		t.Fatal(err)
	}
	if compute(t, o).Sum == first.Sum {
		t.Error("the cache is not used")
	}
	for _, damaged := range []string{"", "{", "[]", `{"a":1}`} {
		if err := os.WriteFile(o.Cache, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if compute(t, o).Sum != first.Sum {
			t.Errorf("damaged cache %q changes the result", damaged)
		}
	}
	put(t, o.Root, "usr/bin/x86_64-linux-gnu-gcc-12", "COMPILER")
	if compute(t, o).Sum == first.Sum {
		t.Error("a changed file of equal size was not noticed")
	}
}

func TestUnreadableIsAnError(t *testing.T) {
	o := tree(t)
	status := filepath.Join(o.Root, "var/lib/dpkg/status")
	_ = os.Remove(status)
	if err := os.Mkdir(status, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Compute(context.Background(), o); err == nil {
		t.Error("an unreadable package database was left out silently")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Compute(ctx, tree(t)); err == nil {
		t.Error("cancelled, but computed")
	}
}

func TestTools(t *testing.T) {
	for name, want := range map[string]bool{
		"gcc": true, "gcc-12": true, "x86_64-linux-gnu-g++-12": true, "clang-19": true, "python3.11": true, "ld.bfd": true,
		"aarch64-linux-gnu-ld": true, "ls": false, "add-apt-repository": false, "python3-config": false, "": false, "-": false,
	} {
		if isTool(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// TestThisMachine shows that a known machine costs little.
func TestThisMachine(t *testing.T) {
	o := Options{Cache: filepath.Join(t.TempDir(), "cache"), Etc: "/etc/ssl/certs"}
	if _, err := os.Stat(o.Etc); err != nil {
		o.Etc = ""
	}
	began := time.Now()
	f := compute(t, o)
	cold := time.Since(began)
	began = time.Now()
	if again := compute(t, o); again.Sum != f.Sum {
		t.Error("the same machine has two fingerprints")
	}
	t.Logf("%d parts, cold %v, known %v", len(f.Parts), cold, time.Since(began))
	if !slices.ContainsFunc(f.Parts, func(p Part) bool { return strings.HasPrefix(p.Value, "build id ") }) {
		t.Skip("no program with a build id here")
	}
}

func FuzzParseNote(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x00\x08\x00\x00\x00\x03\x00\x00\x00GNU\x0012345678"))
	f.Fuzz(func(t *testing.T, note []byte) {
		if id := parseNote(note, binary.LittleEndian); id != "" && len(id) < 16 {
			t.Errorf("id %q", id)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add("Package: a\nStatus: install ok installed\n")
	f.Fuzz(func(_ *testing.T, data string) { _, _ = parseStatus(strings.NewReader(data)) })
}
