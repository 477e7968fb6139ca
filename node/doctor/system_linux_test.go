package doctor

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// kernel lays out files like the kernel's and gives the system they describe, seen by uid.
func kernel(t *testing.T, uid int, files map[string]string) system {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return system{root, uid, func(string) (string, error) { return "", errors.New("not found") }}
}

func TestSystem(t *testing.T) {
	const userns = "proc/sys/kernel/unprivileged_userns_clone"
	const most = "proc/sys/user/max_user_namespaces"
	const armor = "proc/sys/kernel/apparmor_restrict_unprivileged_userns"
	const controllers = "sys/fs/cgroup/cgroup.controllers"
	for _, test := range []struct {
		name    string
		uid     int
		files   map[string]string
		find    func(system) Finding
		verdict Verdict
		want    string // in fact or fix
	}{
		{"namespaces open", 1000, map[string]string{most: "9000", userns: "1"}, system.userNamespaces, OK, "open"},
		{"namespaces root's", 1000, map[string]string{userns: "0"}, system.userNamespaces, Failed, "kernel.unprivileged_userns_clone=1"},
		{"namespaces root's, as root", 0, map[string]string{userns: "0"}, system.userNamespaces, OK, "root"},
		{"namespaces off", 0, map[string]string{most: "0"}, system.userNamespaces, Failed, "max_user_namespaces=15000"},
		{"no apparmor", 1000, nil, system.apparmor, OK, "does not restrict"},
		{"apparmor restricts", 1000, map[string]string{armor: "1"}, system.apparmor, Warning, "install bubblewrap"},
		{"apparmor restricts, as root", 0, map[string]string{armor: "1"}, system.apparmor, OK, "not root's"},
		{"overlay", 1, map[string]string{"proc/filesystems": "nodev\tproc\nnodev\toverlay"}, system.overlay, OK, "offered"},
		{"no overlay", 1, map[string]string{"proc/filesystems": "nodev\tproc"}, system.overlay, Warning, "modprobe overlay"},
		{"no groups", 1, nil, system.controlGroups, Warning, "none mounted"},
		{"groups v1", 1, map[string]string{"sys/fs/cgroup/memory/tasks": ""}, system.controlGroups, OK, "version 1"},
		{"groups v2", 1, map[string]string{controllers: "cpu memory pids", "proc/self/cgroup": "0::/mine",
			"sys/fs/cgroup/mine/cgroup.subtree_control": ""}, system.controlGroups, OK, "cpu memory pids"},
		{"groups v2, not ours", 1, map[string]string{controllers: "cpu memory pids", "proc/self/cgroup": "0::/mine"},
			system.controlGroups, Warning, "not delegated"},
	} {
		f := test.find(kernel(t, test.uid, test.files))
		if f.Verdict != test.verdict || !strings.Contains(f.Fact+" "+f.Fix, test.want) || (f.Verdict == OK) != (f.Fix == "") {
			t.Errorf("%s: %+v, want %v and %q", test.name, f, test.verdict, test.want)
		}
	}
	s := kernel(t, 1000, map[string]string{armor: "1"})
	s.look = func(string) (string, error) { return "/usr/bin/bwrap", nil }
	if f := s.apparmor(); f.Verdict != OK || !strings.Contains(f.Fact, "/usr/bin/bwrap") {
		t.Errorf("with bubblewrap: %+v", f)
	}
}

func TestHolder(t *testing.T) {
	for _, network := range []string{"127.0.0.1:0", "[::1]:0"} {
		listener, err := net.Listen("tcp", network)
		if err != nil {
			t.Logf("%s: %v", network, err)
			continue
		}
		defer listener.Close()
		if got := Holder(listener.Addr().String()); !strings.HasSuffix(got, "(pid "+strconv.Itoa(os.Getpid())+")") {
			t.Errorf("Holder(%s) = %q, want this process", listener.Addr(), got)
		}
	}
	for _, nobody := range []string{"127.0.0.1:1", "127.0.0.1", "127.0.0.1:http", ""} {
		if got := Holder(nobody); got != "" {
			t.Errorf("Holder(%q) = %q", nobody, got)
		}
	}
	if got := listenInode("0: 0100007F:1F90 0100007F:0016 01 0:0 0:0 0 0 0 42\nshort", 8080); got != "" {
		t.Errorf("a connection was taken for a listener: %s", got)
	}
}
