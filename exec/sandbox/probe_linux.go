package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/exec/cgroup"
	"github.com/buildmesh/buildmesh/exec/sandbox/initproc"
)

// Probe finds the best tier of this machine by running one complete sandbox in it. The error is about Options or the
// directory; a machine without any sandbox is no error, but a Box of TierD.
func Probe(ctx context.Context, o Options) (*Box, Report, error) {
	b, err := newBox(o)
	if err != nil {
		return nil, Report{}, err
	}
	report := Report{Init: b.init.kind, Groups: b.options.Groups.Version()}
	minFree := b.options.MinFree
	b.options.MinFree = 0 // a node that starts on a full disk would run nothing even when there is room again
	for b.tier = o.Best; b.tier < TierD; b.tier++ {
		err := b.try(ctx)
		if ctx.Err() != nil {
			_ = b.Close()
			return nil, Report{}, fmt.Errorf("probe sandbox: %w", ctx.Err())
		}
		if err == nil {
			report.Findings = append(report.Findings, Finding{Fact: "tier " + b.tier.String() + ": one complete sandbox was run"})
			break
		}
		report.Findings = append(report.Findings, explain(b.tier, err))
		b.spawners.close() // they are of this tier
	}
	report.Tier = b.tier
	b.options.MinFree = minFree
	return b, report, nil
}

// probeScript does what an action does, and what it must not be able to do. Every line prints one word; see probeAnswer.
// $1 is a file of the node outside the sandbox, $2 an input.
const probeScript = `
test "$(cat "$2")" = probe && echo reads
rm -f "$2" && echo made > "$2" && echo writes
if (echo x > "$1") 2>/dev/null || test -s "$1"; then echo reaches; else echo contained; fi
if test "$(ls /sys/class/net /proc/sys/net/ipv4/conf 2>/dev/null | grep -cvE '^(all|default|lo|/.*|)$')" = 0; then echo offline; fi
`

const probeAnswer = "reads\nwrites\ncontained\noffline\n"

// try runs one complete sandbox in the Box's tier.
func (b *Box) try(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.options.Dir, probes)
	if err != nil {
		return err
	}
	defer Remove(dir)
	input, secret := filepath.Join(dir, "input"), filepath.Join(dir, "secret")
	if err := b.probeFiles(dir, input, secret); err != nil {
		return err
	}
	result, err := b.Run(ctx, Spec{
		Lowers: []string{input}, Scratch: filepath.Join(dir, "scratch"), UID: -1, GID: -1,
		Arguments: []string{"/bin/sh", "-c", probeScript, "sh", secret, "file"},
		Env:       []string{"PATH=/usr/bin:/bin"}, Limits: Limits{Wall: 10 * time.Second},
	})
	if err != nil {
		return err
	}
	answer, _ := os.ReadFile(result.StdoutPath)
	complaint, _ := os.ReadFile(result.StderrPath)
	wanted := probeAnswer
	if b.tier == TierC { // there is one network for all
		wanted = strings.TrimSuffix(wanted, "offline\n")
		answer = bytes.TrimSuffix(answer, []byte("offline\n"))
	}
	if string(answer) != wanted {
		return fmt.Errorf("a test action answered %q (exit code %d) %q", answer, result.ExitCode, complaint)
	}
	if kept, _ := os.ReadFile(filepath.Join(input, "file")); string(kept) != "probe\n" {
		return errors.New("a test action changed its input layer")
	}
	return nil
}

// probeFiles makes an input layer and a file that must stay out of reach, both the guest's own.
func (b *Box) probeFiles(dir, input, secret string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(input, 0o755); err != nil {
		return err
	}
	for path, content := range map[string]string{secret: "", filepath.Join(input, "file"): "probe\n"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
		if uid, gid, need := b.Owner(); need {
			if err := os.Chown(path, uid, gid); err != nil {
				return err
			}
		}
	}
	return nil
}

// explain puts a failed probe into words and, where it is known, says what to do.
func explain(tier Tier, err error) Finding {
	f := Finding{Fact: fmt.Sprintf("tier %v does not work: %v", tier, err)}
	if tier != TierA {
		return f
	}
	for _, knob := range []struct{ file, bad, fix string }{
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{"user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"},
	} {
		value, readErr := os.ReadFile("/proc/sys/" + knob.file)
		if readErr == nil && strings.TrimSpace(string(value)) == knob.bad {
			f.Fix = knob.fix
			return f
		}
	}
	return f
}

func newBox(o Options) (*Box, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("open sandbox: directory %q is not absolute", o.Dir)
	}
	if o.GuestUID == 0 {
		o.GuestUID = defaultGuest
	}
	if o.GuestGID == 0 {
		o.GuestGID = defaultGuest
	}
	if o.TmpBytes == 0 {
		o.TmpBytes = defaultTmp
	}
	if err := o.setMinFree(); err != nil {
		return nil, err
	}
	if o.Groups == nil {
		o.Groups = cgroup.None{}
	}
	sweepProbes(o.Dir)
	b := &Box{options: o, root: os.Getuid() == 0, tools: findTools(o.ToolDirs)}
	if b.root {
		if err := os.Chmod(o.Dir, 0o711); err != nil {
			return nil, fmt.Errorf("open sandbox: %w", err)
		}
	}
	var err error
	if b.base, err = filepath.EvalSymlinks(o.Dir); err != nil {
		return nil, fmt.Errorf("open sandbox: %w", err)
	}
	if err := os.Mkdir(filepath.Join(o.Dir, newRoot), 0o755); err != nil && !os.IsExist(err) {
		return nil, fmt.Errorf("open sandbox: %w", err)
	}
	b.tools.skeleton = filepath.Join(o.Dir, "skeleton")
	for _, d := range []string{"", "dev", "proc", "tmp"} {
		if err := os.Mkdir(filepath.Join(b.tools.skeleton, d), 0o755); err != nil && !os.IsExist(err) {
			return nil, fmt.Errorf("open sandbox: %w", err)
		}
	}
	etc := filepath.Join(o.Dir, "etc")
	if err := buildEtc("/etc", etc); err != nil {
		return nil, err
	}
	b.tools.binds = append(b.tools.binds, initproc.Bind{Source: b.relative(etc), Target: "/etc"})
	b.spawners.start = b.startSpawner
	b.init, err = openProgram()
	return b, err
}

// newRoot is an empty directory below Dir, on which every sandbox mounts a root of its own, unseen by the others.
const newRoot = "root"

// groupName gives every run's control group a name of its own.
func (b *Box) groupName() string { return "run-" + strconv.FormatUint(b.runs.Add(1), 10) }
