package collect

import (
	"fmt"
	"path"
	"strings"
)

// maxLinks bounds the symbolic links followed on one path, as the kernel does.
const maxLinks = 40

// buildDir is where an input root is when it is not the whole root.
const buildDir = "/build"

// resolver walks paths in a view.
type resolver struct {
	view      *view
	wholeRoot bool
	links     int
}

// resolve finds the entry at clean, which is relative to the root. Links on the way are followed inside
// the root, the last component is not. Nil when there is nothing. A path that leaves the root is an
// *OutputError.
func (v *view) resolve(clean string, wholeRoot bool) (*entry, error) {
	r := &resolver{view: v, wholeRoot: wholeRoot}
	return r.walk(nil, clean, false)
}

// follow finds what the link e finally points to; nil when there is nothing inside the root.
func (v *view) follow(e *entry, wholeRoot bool) (*entry, error) {
	r := &resolver{view: v, wholeRoot: wholeRoot}
	return r.walk(nil, e.rel, true)
}

// walk resolves rest from the directory at the end of stack, the root when it is empty. The stack
// holds the directories from the root down, so that ".." is their parent and not the link's.
func (r *resolver) walk(stack []*entry, rest string, last bool) (*entry, error) {
	if len(stack) == 0 {
		top, err := r.view.top()
		if err != nil {
			return nil, err
		}
		stack = []*entry{top}
	}
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			if len(stack) == 1 {
				if r.wholeRoot {
					continue
				}
				return nil, &OutputError{Path: "..", Reason: "leads out of the input root"}
			}
			stack = stack[:len(stack)-1]
			continue
		}
		at := stack[len(stack)-1]
		if at.kind != isDir {
			return nil, nil
		}
		e, err := r.view.child(at, name)
		if e == nil || err != nil {
			return nil, err
		}
		if e.kind == isLink && (rest != "" || last) {
			if stack, rest, err = r.enter(stack, e, rest); err != nil {
				return nil, err
			}
			continue
		}
		stack = append(stack, e)
	}
	return stack[len(stack)-1], nil
}

// enter replaces the link e on a walk by its target.
func (r *resolver) enter(stack []*entry, e *entry, rest string) ([]*entry, string, error) {
	if r.links++; r.links > maxLinks {
		return nil, "", &OutputError{Path: e.rel, Reason: "is reached through too many symbolic links"}
	}
	target := e.target
	if path.IsAbs(target) {
		inside, ok := target, true
		if !r.wholeRoot {
			inside, ok = strings.CutPrefix(path.Clean(target)+"/", buildDir+"/")
		}
		if !ok {
			reason := fmt.Sprintf("is a symbolic link to %q, out of the input root", target)
			return nil, "", &OutputError{Path: e.rel, Reason: reason}
		}
		stack, target = stack[:1], inside
	}
	return stack, target + "/" + rest, nil
}
