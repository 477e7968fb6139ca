package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// prefix starts the name of every directory this package makes. The node's process id, its begin and its space of process ids
// follow, so that what a killed node left behind can be told from what a living one uses, also when its process id has been given
// to another process, and when it lives in another container.
const prefix = "buildmesh-"

// Find gives the best Manager this process may use, having swept what killed nodes left. The error tells why it is None;
// it is for the owner to read, and a node works without.
func Find() (Manager, error) { return find("/proc", "/sys/fs/cgroup") }

// Sweep removes what killed nodes left in the control groups of this process, where those it starts make theirs.
func Sweep() { sweep("/proc", ownParents()...) }

// Homes are those of living nodes, and of killed ones, in the control groups of this process.
func Homes() []Home {
	var all []Home
	for _, parent := range ownParents() {
		all = append(all, homes("/proc", parent)...)
	}
	return all
}

func ownParents() []string {
	paths, err := own("/proc/self/cgroup")
	if err != nil {
		return nil // a machine without any
	}
	return parents("/sys/fs/cgroup", paths)
}

func find(proc, root string) (Manager, error) {
	paths, err := own(filepath.Join(proc, "self/cgroup"))
	if err != nil {
		return None{}, err
	}
	sweep(proc, parents(root, paths)...)
	if paths["memory"] != "" {
		return findV1(root, paths)
	}
	path, ok := paths[""]
	if !ok {
		return None{}, errors.New("find control group: this process is in none")
	}
	return findV2(filepath.Join(root, path))
}

// own parses /proc/self/cgroup: controller to path, "" for version 2.
func own(file string) (map[string]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("find control group: %w", err)
	}
	return parseOwn(string(data)), nil
}

// parseOwn reads lines of the form number:controllers:path, see cgroups(7).
func parseOwn(data string) map[string]string {
	paths := map[string]string{}
	for line := range strings.Lines(data) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			paths[controller] = fields[2]
		}
	}
	return paths
}

// home is the name of the directory of a Manager's groups: the first one of a process, or a later one.
func home(number int) string {
	began, _ := begin("/proc", os.Getpid()) // without it nobody takes another process for this one
	name := fmt.Sprintf("%s%d-%s-%s", prefix, os.Getpid(), began, space())
	if number > 0 {
		name += "." + strconv.Itoa(number)
	}
	return name
}

// space names the pid namespace of this process by its number; see namespaces(7). Empty: it is not known.
func space() string {
	name, _ := os.Readlink("/proc/self/ns/pid")
	return strings.Trim(name, "pid:[]")
}

// begin is when a process began, in ticks since the machine did; see proc_pid_stat(5). Empty without an error: there is no such
// process.
func begin(proc string, pid int) (string, error) {
	data, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	afterName := string(data[bytes.LastIndexByte(data, ')')+1:])
	const started = 19 // fields after the name
	if fields := strings.Fields(afterName); len(fields) > started {
		return fields[started], nil
	}
	return "", fmt.Errorf("begin of process %d is not told", pid)
}

// maxHomes bounds the Managers of one process.
const maxHomes = 1000

// makeHome makes a directory below parent that no other Manager has, and gives its path.
func makeHome(parent string) (string, error) {
	for number := range maxHomes {
		path := filepath.Join(parent, home(number))
		err := os.Mkdir(path, 0o755)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return "", os.ErrExist
}

// makeGroup makes the directory of a group, and that of the Manager before it when somebody took it for a dead node's; open
// prepares the latter.
func makeGroup(dir string, open func(home string) error) error {
	err := os.Mkdir(dir, 0o755)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	home := filepath.Dir(dir)
	if err := os.Mkdir(home, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := open(home); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o755)
}

// parents are the control groups in which a process with these paths makes its home, in the order in which they are swept.
func parents(root string, paths map[string]string) []string {
	var all []string
	for _, c := range slices.Backward(v1Controllers) {
		if path, ok := paths[c]; ok {
			all = append(all, filepath.Join(root, c, path))
		}
	}
	if path, ok := paths[""]; ok {
		all = append(all, above(filepath.Join(root, path)))
	}
	return all
}

// Home is a directory in which a node has the groups of its actions.
type Home struct {
	Path   string
	PID    int  // of the node
	Living bool // the node has not ended, as far as can be told
}

// homes are those in a control group, but for those of other containers, of whose processes nothing is known here.
func homes(proc, parent string) []Home {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil
	}
	var all []Home
	for _, e := range entries {
		owner, _, _ := strings.Cut(strings.TrimPrefix(e.Name(), prefix), ".")
		number, rest, _ := strings.Cut(owner, "-")
		began, in, _ := strings.Cut(rest, "-") // earlier versions named directories without these
		pid, err := strconv.Atoi(number)
		if err != nil || !strings.HasPrefix(e.Name(), prefix) || !e.IsDir() || in != "" && in != space() {
			continue
		}
		now, err := begin(proc, pid)
		living := err != nil || now != "" && (began == "" || began == now)
		all = append(all, Home{Path: filepath.Join(parent, e.Name()), PID: pid, Living: living})
	}
	return all
}

// sweep removes the groups of nodes that are dead, with the processes in them.
func sweep(proc string, parents ...string) {
	for _, parent := range parents {
		for _, h := range homes(proc, parent) {
			if !h.Living {
				removeAll(h.Path)
			}
		}
	}
}

// removeAll removes a group and those in it, one level deep, which is all this package makes. What is frozen there goes on
// first: in version 1 it does not die.
func removeAll(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			group := filepath.Join(dir, e.Name())
			_ = killProcesses(group)
			thaw(group)
			_ = remove(group)
		}
	}
	_ = remove(dir)
}

// thaw lets a group of version 1 go on; one without a freezer is left as it is.
func thaw(dir string) {
	if f, err := os.OpenFile(filepath.Join(dir, freezerState), os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString(thawed)
		_ = f.Close()
	}
}

// removeWait bounds how long remove waits for killed processes to leave their group.
const removeWait = time.Second

// remove kills what is in a group and removes it. A killed process leaves its group a moment after it is gone for its
// parent, so the directory is busy for a while.
func remove(dir string) error {
	pause := 100 * time.Microsecond
	for end := time.Now().Add(removeWait); ; pause *= 2 {
		err := syscall.Rmdir(dir)
		if err == nil || err == syscall.ENOENT {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("remove control group %s: %w", filepath.Base(dir), err)
		}
		_ = killProcesses(dir)
		time.Sleep(pause)
	}
}

// killProcesses kills all processes of a group, one by one, until a look finds none that was not killed already.
func killProcesses(dir string) error {
	killed := map[int]bool{}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return fmt.Errorf("list processes of control group: %w", err)
		}
		fresh := false
		for field := range strings.FieldsSeq(string(data)) {
			pid, err := strconv.Atoi(field)
			if err != nil || pid <= 1 || pid == os.Getpid() || killed[pid] {
				continue
			}
			killed[pid], fresh = true, true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if !fresh {
			return nil
		}
	}
}

func write(dir, file, value string) error {
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set control group: %w", err)
	}
	return nil
}

func number(dir, file string) int64 {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// field gives the number after a name in a file of lines "name number".
func field(dir, file, name string) int64 {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key == name {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}

// checkName refuses names that would leave the directory.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("control group name %q is not a file name", name)
	}
	return nil
}
