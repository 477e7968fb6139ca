package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEtcShowsOnlyWhatIsPublic(t *testing.T) {
	source, dir := t.TempDir(), filepath.Join(t.TempDir(), "etc")
	for name, mode := range map[string]os.FileMode{
		"ld.so.conf": 0o644, "ld.so.conf.d/a.conf": 0o644, "ssl/certs/secret.pem": 0o600, "ssl/private/host.pem": 0o644,
		"npmrc": 0o644, "shadow": 0o640, "python3.11/site.py": 0o644, "passwd": 0o644,
	} {
		path := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("content"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(source, "alternatives"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr/bin/gcc", filepath.Join(source, "alternatives", "cc")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over the first
		if err := buildEtc(source, dir); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{
		"ld.so.conf": true, "ld.so.conf.d/a.conf": true, "python3.11/site.py": true, "hosts": true,
		"ssl/certs/secret.pem": false, "ssl/private": false, "npmrc": false, "shadow": false,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v, want it shown: %v", name, err, want)
		}
	}
	if link, err := os.Readlink(filepath.Join(dir, "alternatives", "cc")); err != nil || link != "/usr/bin/gcc" {
		t.Errorf("link %q, %v", link, err)
	}
	if got := read(t, filepath.Join(dir, "passwd")); got == "content" {
		t.Error("the machine's users are shown")
	}
}
