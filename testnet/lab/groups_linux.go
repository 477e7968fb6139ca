package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Groups are the control groups of actions on the node, and those that its earlier lives have left.
func (n *Node) Groups() ([]string, error) {
	n.mu.Lock()
	lives := slices.Clone(n.lives)
	n.mu.Unlock()
	var all []string
	for _, parent := range parents() {
		homes, err := filepath.Glob(filepath.Join(parent, "buildmesh-*"))
		if err != nil {
			return nil, err
		}
		for _, home := range homes {
			owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(home), "buildmesh-"), "-")
			pid, err := strconv.Atoi(owner)
			if err != nil || !slices.Contains(lives, pid) {
				continue
			}
			if _, err := os.Stat(fmt.Sprint("/proc/", pid)); err != nil {
				all = append(all, home)
			} else if pid == n.PID() { // else another lab's node has that process id now
				all = append(all, below(home)...)
			}
		}
	}
	return all, nil
}

// below are the control groups in one.
func below(group string) []string {
	found, _ := filepath.Glob(filepath.Join(group, "*", "cgroup.procs")) // an error is about the pattern
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found
}

// parents are the control groups this process is in, and so the nodes it starts: there nodes make theirs. See cgroups(7).
func parents() []string {
	const root = "/sys/fs/cgroup"
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil // a machine without any
	}
	var all []string
	for line := range strings.Lines(string(own)) {
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 {
			for controller := range strings.SplitSeq(fields[1], ",") {
				all = append(all, filepath.Join(root, controller, fields[2]))
			}
		}
	}
	return all
}
