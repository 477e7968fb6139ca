package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// ordinary is the user the tests are run as again: not root, not the guest.
const ordinary = 65499

// TestOrdinaryUser runs what matters once more as a user without any privilege, so that a test run of root covers the way
// in which most nodes work.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("this is an ordinary user already")
	}
	dir, err := os.MkdirTemp("", "ordinary-")
	if err != nil {
		t.Fatal(err)
	}
	defer Remove(dir)
	if err := os.Chown(dir, ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("/proc/self/exe") // where it lies only root may go
	if err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(dir, "sandbox.test")
	if err := os.WriteFile(self, code, 0o755); err != nil {
		t.Fatal(err)
	}
	again := []string{
		"TestRun", "TestStoreStaysUnwritten", "TestOutOfReach", "TestWholeRoot", "TestTimeout", "TestOrphans",
		"TestConfined", "TestMemoryHog", "TestNothingLeft", "TestPrivateParent", "TestReadOnlySubtree", "TestHiddenDirectories",
	}
	cmd := exec.Command(self, "-test.v", "-test.run", "^("+strings.Join(again, "|")+")$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, name := range again {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass", name)
		}
	}
}
