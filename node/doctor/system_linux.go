package doctor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// leastOpenFiles is what a build with many parallel uploads needs.
const leastOpenFiles = 4096

// system is the kernel as its files show it; tests put a directory of their own in its place.
type system struct {
	root string // "/" but in tests
	uid  int
	look func(string) (string, error) // exec.LookPath but in tests
}

// systemChecks are the checks of what a sandbox is made from.
func systemChecks() []Check {
	s := system{"/", os.Getuid(), exec.LookPath}
	return []Check{
		one("user namespaces", nil, s.userNamespaces),
		one("apparmor", []string{"user namespaces"}, s.apparmor),
		one("overlay file system", nil, s.overlay),
		one("control groups", nil, s.controlGroups),
	}
}

// systemRoots names the checks without which no sandbox can be expected.
func systemRoots() []string { return []string{"user namespaces"} }

// read is a kernel file's text without the final newline; empty when there is no such file.
func (s system) read(path string) string {
	data, err := os.ReadFile(filepath.Join(s.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func (s system) userNamespaces() Finding {
	if n, err := strconv.Atoi(s.read("proc/sys/user/max_user_namespaces")); err == nil && n == 0 {
		return failed("sudo sysctl -w user.max_user_namespaces=15000", "user namespaces are switched off (user.max_user_namespaces = 0)")
	}
	if s.uid == 0 {
		return ok("the node is root and needs none")
	}
	if s.read("proc/sys/kernel/unprivileged_userns_clone") == "0" {
		return failed("sudo sysctl -w kernel.unprivileged_userns_clone=1",
			"user namespaces are for root only (kernel.unprivileged_userns_clone = 0)")
	}
	return ok("open to this user")
}

func (s system) apparmor() Finding {
	switch {
	case s.read("proc/sys/kernel/apparmor_restrict_unprivileged_userns") != "1":
		return ok("does not restrict user namespaces")
	case s.uid == 0:
		return ok("restricts user namespaces, but not root's")
	}
	if path, err := s.look("bwrap"); err == nil {
		return ok("restricts user namespaces; %s has a profile that allows them", path)
	}
	return warning("sudo apt-get install bubblewrap",
		"restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns = 1): only bubblewrap may use them")
}

func (s system) overlay() Finding {
	if !strings.Contains(s.read("proc/filesystems"), "overlay") {
		return warning("sudo modprobe overlay", "the kernel does not offer it: inputs are copied for every action, which is slow")
	}
	return ok("offered by the kernel")
}

func (s system) controlGroups() Finding {
	if s.read("sys/fs/cgroup/cgroup.controllers") == "" {
		if _, err := os.Stat(filepath.Join(s.root, "sys/fs/cgroup/memory")); err == nil {
			return ok("version 1")
		}
		return warning("boot with systemd.unified_cgroup_hierarchy=1, or mount: sudo mount -t cgroup2 none /sys/fs/cgroup",
			"none mounted: memory is limited by process, not by action")
	}
	_, own, _ := strings.Cut(s.read("proc/self/cgroup"), "0::")
	own, _, _ = strings.Cut(own, "\n")
	dir := filepath.Join(s.root, "sys/fs/cgroup", own)
	if err := unix.Access(filepath.Join(dir, "cgroup.subtree_control"), unix.W_OK); err != nil {
		return warning("systemd-run --user --scope -p Delegate=yes buildmesh up",
			"version 2, but the node's own group is not delegated to it: memory is limited by process, not by action")
	}
	return ok("version 2, delegated: %s", strings.Join(strings.Fields(s.read("sys/fs/cgroup/cgroup.controllers")), " "))
}

// openFiles judges the limit of file descriptors.
func openFiles() Finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return warning("ulimit -n", "the limit is not known: %v", err)
	}
	if limit.Max < leastOpenFiles {
		return warning(fmt.Sprintf("ulimit -n %d, or LimitNOFILE= in the service file", 4*leastOpenFiles),
			"at most %d at a time; a wide build needs %d", limit.Max, leastOpenFiles)
	}
	return ok("up to %d at a time", limit.Max)
}

// diskSpace is the free disk an ordinary user may take and the whole, in bytes.
func diskSpace(dir string) (free, total int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, err
	}
	return int64(fs.Bavail) * fs.Bsize, int64(fs.Blocks) * fs.Bsize, nil
}
