package sandbox

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestStoreStaysUnwritten tries every known way to write through an input layer made of hardlinks into a store.
func TestStoreStaysUnwritten(t *testing.T) {
	for _, who := range []struct {
		name     string
		uid, gid int
		whole    bool
	}{{"user", -1, -1, false}, {"root inside", 0, 0, false}, {"user, whole root", -1, -1, true}, {"root inside, whole root", 0, 0, true}} {
		t.Run(who.name, func(t *testing.T) {
			s := newStand(t)
			blob := filepath.Join(s.dir, "blob")
			if err := os.Link(filepath.Join(s.lower, "input.txt"), blob); err != nil {
				t.Fatal(err)
			}
			spec := s.shell(`
				f=input.txt
				echo bad > $f; chmod 777 $f; echo bad > $f; echo bad >> $f
				ln $f link; echo bad > link; ln -s $f sym; echo bad > sym
				dd if=/dev/zero of=$f bs=1 count=1 conv=notrunc
				truncate -s 0 $f; mv $f moved; echo bad > moved; chown 0:0 moved; touch -d 2001-01-01 moved
				echo bad > ` + blob + `
				echo bad > /proc/1/root` + blob + `
				echo bad > /proc/self/root` + blob + `
				true`)
			spec.UID, spec.GID = who.uid, who.gid
			if who.whole {
				spec = s.whole(spec)
			}
			r := s.run(spec)
			if r.ExitCode != 0 {
				t.Errorf("exit code %d, %s", r.ExitCode, read(t, r.StderrPath))
			}
			info, err := os.Stat(blob)
			if err != nil {
				t.Fatal(err)
			}
			st := info.Sys().(*syscall.Stat_t)
			if got := read(t, blob); got != "input\n" || info.Mode() != 0o444 || st.Nlink != 2 {
				t.Errorf("the store was reached: %q, mode %v, %d links", got, info.Mode(), st.Nlink)
			}
			if uid, _, need := s.box.Owner(); need && int(st.Uid) != uid {
				t.Errorf("owner changed to %d", st.Uid)
			}
		})
	}
}

// TestOutOfReach lists what an action must not see or do. Every script must fail.
func TestOutOfReach(t *testing.T) {
	s := newStand(t)
	secret := filepath.Join(s.dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	abstract, err := net.Listen("unix", fmt.Sprintf("@buildmesh-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	if err := os.Symlink("/", filepath.Join(s.lower, "up")); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"the node's files":            "cat " + secret,
		"by a symlink in the inputs":  "cat up" + secret,
		"by dots":                     "cat ../../../../.." + secret,
		"by init's root":              "cat /proc/1/root" + secret,
		"init's directory":            "ls /proc/1/cwd/",
		"init's memory":               "head -c 1 /proc/1/mem",
		"init's descriptors":          "readlink /proc/1/fd/0 || cat /proc/1/fd/3",
		"init's program":              "head -c 1 /proc/1/exe",
		"the owner's home":            "ls /root /home/*",
		"the machine's variable data": "ls /var/lib",
		"tokens in etc":               "ls /etc/npmrc /etc/pip.conf /etc/fstab /etc/machine-id",
		"password hashes":             "cat /etc/shadow",
		"writing tools":               "echo x > /usr/bin/evil || echo x > /etc/evil",
		"writing the root":            "mkdir /new || chmod 777 /",
		"the node's loopback":         "exec 3<>/dev/tcp/127.0.0.1/" + port,
		"an abstract socket":          "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"\\0" + abstract.Addr().String()[1:] + "\")'",
		"vsock":                       "python3 -c 'import socket; socket.socket(40, socket.SOCK_STREAM)'",
		"mounting":                    "mount -t tmpfs none /tmp",
		"unmounting":                  "umount /proc/sys || umount /build",
		"new namespaces":              "unshare -Ur true || unshare -m true",
		"chroot":                      "chroot /build /bin/true",
		"kernel settings":             "echo 1 > /proc/sys/kernel/panic",
		"sysrq":                       "echo h > /proc/sysrq-trigger",
		"devices":                     "mknod disk b 8 0 || mknod /dev/disk b 8 0 || mknod mem c 1 1",
		"the kernel log":              "dmesg",
		"the host name":               "hostname evil",
		"the host's processes":        fmt.Sprintf("kill -0 %d", os.Getpid()),
		"killing init":                "kill -9 1; kill -STOP 1; grep -E 'State:.*(T|Z)' /proc/1/status",
		"a setuid program":            "cp /usr/bin/id mine; chmod 4755 mine; chown 0 mine && test $(id -u) != 0 && ./mine -u | grep -qx 0",
		"capabilities":                "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | grep -qv 0000000000000000",
	} {
		for _, uid := range []int{-1, 0} {
			spec := s.spec("bash", "-c", script)
			spec.UID, spec.GID = uid, uid
			if r := s.run(spec); r.ExitCode == 0 {
				t.Errorf("%s (uid %d): allowed; %s%s", name, uid, read(t, r.StdoutPath), read(t, r.StderrPath))
			} else if r.Reason != Exited {
				t.Errorf("%s: %v", name, r.Reason)
			}
		}
	}
}

// TestWorks lists what an action must be able to do. Every script must succeed.
func TestWorks(t *testing.T) {
	s := newStand(t)
	spec := func(script string) Spec { return s.spec("bash", "-e", "-c", script) }
	for name, script := range map[string]string{
		"identity":        "test $(id -u) = 1000 && test $(id -g) = 1000 && test \"$(id -G)\" = 1000",
		"host name":       "test $(uname -n) = buildmesh",
		"fixed variables": "test $TZ = UTC && test $LANG = C.UTF-8 && test -d $HOME && test -w $HOME && test $(umask) = 0022",
		"temporary files": "echo x > /tmp/x && echo x > /dev/shm/x && echo x > $HOME/x && rm /tmp/x",
		"devices":         "head -c 4 /dev/urandom > /dev/null && head -c 1 /dev/zero > x && test -c /dev/full && test -c /dev/tty",
		"terminals":       "python3 -c 'import pty; m, s = pty.openpty()'",
		"descriptors":     "cat <(echo x) && echo x > /dev/stdout && echo x > /dev/stderr && test -e /dev/fd/0",
		"empty input":     "test -z \"$(cat)\"",
		"own loopback":    "python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); socket.create_connection(s.getsockname())'",
		"processes":       "test $(ls -d /proc/[0-9]* | wc -l) -lt 6 && sleep 0.01 & wait",
		"only loopback":   "test $(tail -n +3 /proc/net/dev | wc -l) = 1",
		"threads":         "python3 -c 'import threading; t = threading.Thread(target=print); t.start(); t.join()'",
		"compiler":        "echo 'int main(){return 0;}' > a.c && gcc a.c -o a && ./a",
		"removing inputs": "rm -f input.txt && test ! -e input.txt && mkdir input.txt",
		"a session":       "test $(ps -o sid= -p $$) = $$",
	} {
		if r := s.run(spec(script)); r.ExitCode != 0 {
			t.Errorf("%s: exit code %d; %s%s", name, r.ExitCode, read(t, r.StdoutPath), read(t, r.StderrPath))
		}
	}
}

// TestForeignSystemCalls proves that the filter cannot be passed by the 32-bit or x32 interface.
func TestForeignSystemCalls(t *testing.T) {
	s := newStand(t)
	s.file("x.c", `#include <unistd.h>
#include <sys/syscall.h>
#include <errno.h>
int main(int c, char **v) {
	if (c > 1) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20)); return r > 0 ? 0 : 1; }
	return syscall(0x40000000 | SYS_getpid) == -1 && errno == ENOSYS ? 0 : 1;
}`, 0o444)
	if r := s.run(s.shell("case $(uname -m) in x86_64) gcc -w x.c -o x && ./x;; esac")); r.ExitCode != 0 {
		t.Errorf("x32 calls answered: %s", read(t, r.StderrPath))
	}
	r := s.run(s.shell("case $(uname -m) in x86_64) gcc -w x.c -o x && exec ./x 32;; *) kill -SYS $$;; esac"))
	if r.Signal != int(syscall.SIGSYS) && r.Signal != int(syscall.SIGSEGV) { // the latter: a kernel without the interface
		t.Errorf("a 32-bit call ended with %+v %s", r, read(t, r.StderrPath))
	}
}

// TestWholeRoot proves that the input root is the root, and that what is mounted over it is not captured.
func TestWholeRoot(t *testing.T) {
	s := newStand(t)
	spec := s.whole(s.shell("id -u; echo x > /made; echo x > /tmp/x; echo x > /dev/shm/x; test -e /proc/self && test -c /dev/null; ls /; pwd"))
	spec.UID, spec.GID = 0, 0
	spec.WorkingDirectory = "tree/deep"
	r := s.run(spec)
	if r.ExitCode != 0 {
		t.Fatalf("%+v %s", r, read(t, r.StderrPath))
	}
	out := read(t, r.StdoutPath)
	if !strings.HasPrefix(out, "0\n") || !strings.Contains(out, "input.txt\n") || !strings.HasSuffix(out, "/tree/deep\n") || strings.Contains(out, "home") {
		t.Errorf("saw %q", out)
	}
	entries, err := os.ReadDir(r.Upper)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "made tree" {
		t.Errorf("captured %q", got)
	}
}

// TestReadOnlyRoot proves that the whole root can be kept from the action, but for what is the sandbox's and what the
// client leaves open, and that what is made below is captured.
func TestReadOnlyRoot(t *testing.T) {
	s := newStand(t)
	spec := s.whole(s.shell(`echo x >/made || chmod 777 /input.txt || mv /input.txt /other || touch /bin/new || rm /bin/id || exit 7`))
	spec.UID, spec.GID, spec.ReadOnly = 0, 0, []string{"."}
	if r := s.run(spec); r.ExitCode != 7 {
		t.Errorf("%+v %s", r, read(t, r.StderrPath))
	}
	spec = s.whole(s.shell(`set -e; echo x >/tmp/x; echo x >/dev/shm/x; echo x >made; echo x >/install/made; ! echo x >/project/made; ! touch /proc/version`))
	spec.WorkingDirectory, spec.Directories = "project/element", []string{"install"}
	spec.UID, spec.GID, spec.ReadOnly, spec.Writable = 0, 0, []string{"."}, []string{"install", "project/element"}
	r := s.run(spec)
	if r.ExitCode != 0 {
		t.Fatalf("%+v %s", r, read(t, r.StderrPath))
	}
	for _, name := range []string{"project/element/made", "install/made"} {
		if got := read(t, filepath.Join(r.Upper, name)); got != "x\n" {
			t.Errorf("%s holds %q", name, got)
		}
	}
}

// whole makes a root of the input layer and the few tools the tests use, and asks for it as the whole root.
func (s *stand) whole(spec Spec) Spec {
	s.t.Helper()
	root := filepath.Join(s.dir, "tools")
	if _, err := os.Stat(root); err != nil {
		script := `set -e; mkdir -p "$0/bin" "$0/tmp"; for p in sh chmod ln dd truncate mv chown touch true id ls pwd; do
			p=/usr/bin/$p; cp -L "$p" "$0/bin/"
			ldd "$p" | grep -o '/[^ ]*' | while read l; do mkdir -p "$0$(dirname $l)"; cp -L "$l" "$0$l"; done
			done; chown -R "$1" "$0"`
		uid, gid, _ := s.box.Owner()
		if out, err := command("sh", "-c", script, root, fmt.Sprintf("%d:%d", uid, gid)).CombinedOutput(); err != nil {
			s.t.Fatalf("%v: %s", err, out)
		}
	}
	spec.WholeRoot, spec.Lowers = true, append(spec.Lowers, root)
	return spec
}
