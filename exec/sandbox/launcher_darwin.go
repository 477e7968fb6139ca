package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// On macOS sandbox-exec(1) confines the action by a profile of the kernel's sandbox, and its process group holds it
// together.

// foldCase: names of variables differ by case.
const foldCase = false

// confiner is Apple's own program; it has its place since Mac OS X 10.5.
const confiner = "/usr/bin/sandbox-exec"

// profile is written in the sandbox's profile language; the last rule that matches wins. The paths are parameters, so that
// none has to be quoted. What is denied: writing anywhere but into the run's directories, reading what the node keeps and
// the owner's home, and, unless asked for, the network.
const profile = `(version 1)
(allow default)
(deny file-write*)
(allow file-write* (subpath (param "UPPER")) (subpath (param "WORK"))
  (literal "/dev/null") (literal "/dev/zero") (literal "/dev/tty") (literal "/dev/dtracehelper"))
(deny file-read-data (subpath (param "HOME")) (subpath (param "BASE")))
(allow file-read* (subpath (param "UPPER")) (subpath (param "WORK")))
`

// offline is added where the action may not use the network.
const offline = `(deny network*)
`

type systemLauncher struct{ base string }

func newLauncher(base string) launcher { return systemLauncher{base: base} }

// Search implements launcher.
func (systemLauncher) Search(directory string) search {
	return search{directory: directory, separators: "/", standard: "/usr/bin:/bin:/usr/sbin:/sbin"}
}

// Environment implements launcher.
func (systemLauncher) Environment(tmp string) []string {
	return []string{"TZ=UTC", "LANG=C", "HOME=" + tmp, "TMPDIR=" + tmp}
}

// Start implements launcher.
func (s systemLauncher) Start(l *launch) (body, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/Users"
	}
	rules := profile
	if !l.spec.Network {
		rules += offline
	}
	arguments := []string{"-p", rules, "-D", "UPPER=" + l.place.upper, "-D", "WORK=" + l.place.work, "-D", "HOME=" + home,
		"-D", "BASE=" + s.base, "/bin/sh", "-c", limits(l.spec), "sh", l.program}
	cmd := exec.Command(confiner, append(arguments, l.arguments[1:]...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = l.directory, l.env, l.place.stdout, l.place.stderr
	group, err := startGroup(cmd)
	var failed *os.PathError
	if errors.As(err, &failed) && errors.Is(err, syscall.ENOENT) {
		return nil, errors.Join(ErrNoSandbox, err)
	}
	if err != nil {
		return nil, err
	}
	return group, nil
}

// limits is a shell script that sets what setrlimit(2) can limit and becomes the action. A single file stops at the disk's
// limit; memory is not limited by macOS.
func limits(spec *Spec) string {
	var script strings.Builder
	if spec.Limits.Disk > 0 {
		script.WriteString("ulimit -f " + strconv.FormatInt(spec.Limits.Disk/512+1, 10) + " 2>/dev/null; ")
	}
	script.WriteString(`exec "$@"`)
	return script.String()
}

// systemProbe is an action that copies its input and tries to write to secret.
func systemProbe(secret string) []string {
	return []string{"/bin/sh", "-c", `cat file > made && rm -f file && (echo x > "$1") 2>/dev/null; test -s made`, "sh", secret}
}
