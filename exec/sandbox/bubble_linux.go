package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/buildmesh/buildmesh/exec/sandbox/initproc"
)

// Tier B: the system lets only bubblewrap make namespaces with privileges in them, by a profile of its own. It builds the
// same root around init, with the input root as a private copy instead of an overlay.

// bubbleInit is the descriptor bubblewrap's child finds its program at, after the two pipes.
const bubbleInit = initproc.ReportFD + 1

// bubbleArguments is the command line of bubblewrap, without its own name.
func bubbleArguments(t hostTools, base string, spec *Spec, upper string) []string {
	uid, gid := inside(spec)
	args := []string{
		"--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
		"--uid", strconv.Itoa(uid), "--gid", strconv.Itoa(gid), "--hostname", "buildmesh",
		"--die-with-parent", "--as-pid-1", "--clearenv",
	}
	if !spec.Network {
		args = append(args, "--unshare-net")
	}
	for _, b := range t.binds {
		source := b.Source
		if source[0] != '/' {
			source = base + "/" + source
		}
		args = append(args, "--ro-bind", source, b.Target)
	}
	for _, l := range t.links {
		args = append(args, "--symlink", l.Target, l.Name)
	}
	if r := resolver(); spec.Network {
		args = append(args, "--ro-bind", r.Source, r.Target)
	}
	args = append(args, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/home", "--bind", upper, inputRoot)
	for _, p := range spec.protections() {
		bind := "--ro-bind"
		if p.Writable {
			bind = "--bind"
		}
		args = append(args, bind, upper+"/"+p.Path, spec.inside(p.Path))
	}
	return append(args, "--remount-ro", "/", "--setenv", "GOMAXPROCS", "1", "--setenv", "GOGC", "off",
		"--", "/proc/self/fd/"+strconv.Itoa(bubbleInit))
}

// startBubble starts bubblewrap around an init for one run.
func (b *Box) startBubble(run *initproc.Setup, spec *Spec, place *scratch) (process, *os.File, error) {
	if b.init.file == nil {
		return nil, nil, fmt.Errorf("%w by bubblewrap: this node has no embedded init program", ErrNoSandbox)
	}
	path, err := exec.LookPath("bwrap")
	if err != nil {
		return nil, nil, fmt.Errorf("%w by bubblewrap: %v", ErrNoSandbox, err)
	}
	cmd := exec.Command(path, bubbleArguments(b.tools, b.base, spec, place.upper)...)
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.Stdout, cmd.Stderr = place.stdout, place.stderr
	cmd.ExtraFiles = []*os.File{b.init.file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if uid, gid, need := b.Owner(); need {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return b.startDirect(cmd, &initproc.Setup{Mode: initproc.Prebuilt, Base: inputRoot}, run)
}
