package lab

import (
	"path/filepath"
	"slices"

	"github.com/buildmesh/buildmesh/exec/cgroup"
)

// Groups are the control groups of actions on the node, and the homes of those that its earlier lives have left.
func (n *Node) Groups() []string {
	n.mu.Lock()
	lives := slices.Clone(n.lives)
	n.mu.Unlock()
	var all []string
	for _, home := range cgroup.Homes() {
		switch {
		case !slices.Contains(lives, home.PID):
		case !home.Living:
			all = append(all, home.Path)
		case home.PID == n.PID(): // else another lab's node has that process id now
			all = append(all, below(home.Path)...)
		}
	}
	return all
}

// below are the control groups in one.
func below(group string) []string {
	found, _ := filepath.Glob(filepath.Join(group, "*", "cgroup.procs")) // an error is about the pattern
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found
}
