package sandbox

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestProbeDenied runs the probe, as an ordinary user, where no user namespaces can be made.
func TestProbeDenied(t *testing.T) {
	if dir := os.Getenv("BUILDMESH_TEST_DENIED"); dir != "" {
		box, report, err := Probe(context.Background(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer box.Close()
		if report.Tier != box.Tier() || box.Tier().Guests() {
			t.Errorf("guests are let in: %+v", report)
		}
		if len(report.Findings) == 0 || !strings.Contains(report.Findings[0].Fix, "user.max_user_namespaces") {
			t.Errorf("no cure named: %+v", report)
		}
		if box.Tier() == TierD {
			if _, err := box.Run(context.Background(), Spec{Arguments: []string{"true"}, Scratch: dir}); !errors.Is(err, ErrNoSandbox) {
				t.Errorf("ran without a sandbox: %v", err)
			}
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can take namespaces away from a test")
	}
	s := newStand(t)
	if err := os.Chown(s.dir, 65500, 65500); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `echo 0 > /proc/sys/user/max_user_namespaces || exit 77
		exec setpriv --reuid 65500 --regid 65500 --clear-groups "$0" -test.run '^TestProbeDenied$'`, self)
	both := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: 65500, HostID: 65500, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: both, GidMappings: both, GidMappingsEnableSetgroups: true}
	for dir := self; dir != "/" && dir != os.TempDir(); dir = dir[:max(1, strings.LastIndexByte(dir, '/'))] {
		_ = os.Chmod(dir, 0o755)
	}
	sub := s.dir + "/denied"
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(sub, 65500, 65500); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "BUILDMESH_TEST_DENIED="+sub)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 77 {
		t.Skip("this kernel does not let the limit be set")
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestProbeSweeps: nothing is left of a test run whose node was killed.
func TestProbeSweeps(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "probe-1", "scratch")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	box, _, err := Probe(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	if found, _ := filepath.Glob(filepath.Join(dir, "probe-*")); len(found) > 0 {
		t.Errorf("left: %s", found)
	}
}

func TestProbeOptions(t *testing.T) {
	for _, dir := range []string{"", "relative", "/nonexistent/directory"} {
		if _, _, err := Probe(context.Background(), Options{Dir: dir}); err == nil {
			t.Errorf("directory %q was accepted", dir)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := Probe(ctx, Options{Dir: t.TempDir()}); err == nil {
		t.Error("cancelled, but probed")
	}
	box, report, err := Probe(context.Background(), Options{Dir: t.TempDir(), Best: TierD})
	if err != nil || box.Tier() != TierD || report.Tier != TierD {
		t.Errorf("%+v, %v", report, err)
	}
}
