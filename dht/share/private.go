package share

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// Rule says what the owner does not share. Make it with ParseRule.
type Rule struct {
	instances []string // that are shared; none: all
	withheld  []string // instances that are not
	patterns  []string // of paths
}

// ParseRule reads a rule: only the instances named are shared (none named: all), and nothing that noShare lists, which are
// patterns as path.Match has them, of a whole path or of any one part of it, and instances as instance:NAME. A NAME of ""
// is that of the instance whose name is empty.
func ParseRule(instances, noShare []string) (Rule, error) {
	var r Rule
	for _, s := range instances {
		r.instances = append(r.instances, instanceName(s))
	}
	for _, s := range noShare {
		if name, is := strings.CutPrefix(s, "instance:"); is {
			r.withheld = append(r.withheld, instanceName(name))
			continue
		}
		if _, err := path.Match(s, ""); err != nil {
			return Rule{}, fmt.Errorf("pattern %q: %w", s, err)
		}
		r.patterns = append(r.patterns, s)
	}
	return r, nil
}

func instanceName(s string) string {
	if s == `""` {
		return ""
	}
	return s
}

// all reports whether everything is shared.
func (r Rule) all() bool { return len(r.instances)+len(r.withheld)+len(r.patterns) == 0 }

// Private is what is not shared: actions of some instances, actions with files of some names, and the blobs of both. Make
// it with OpenPrivate; the zero value shares everything. Safe for concurrent use.
type Private struct {
	rule    Rule
	marks   *marks // nil: there is nothing to mark
	damaged bool

	mu    sync.Mutex // guards known
	known map[digest.Digest]verdict
}

// verdict is what was found out about an input root while generation was the marks'.
type verdict struct {
	hidden     bool // by name
	shared     bool // nothing of it is hidden
	generation uint64
}

// maxVerdicts bounds how many input roots are remembered.
const maxVerdicts = 4096

// OpenPrivate opens the marks that blobs have in dir; there are none where the rule shares everything and always did. Marks of
// blobs that the store has not are dropped.
func OpenPrivate(dir string, r Rule, store Held) (*Private, error) {
	p := &Private{rule: r, known: map[digest.Digest]verdict{}}
	if r.all() && !marked(dir) {
		return p, nil
	}
	lost := ByInstance
	if len(r.patterns) > 0 {
		lost = ByName
	}
	var err error
	p.marks, p.damaged, err = openMarks(dir, store, lost)
	return p, err
}

// Damaged reports whether marks had been lost when it was opened: every blob there was then is private now.
func (p *Private) Damaged() bool { return p.damaged }

// Close makes the marks durable.
func (p *Private) Close() error {
	if p.marks == nil {
		return nil
	}
	return p.marks.log.Close()
}

// Active reports whether anything is private, or may become so.
func (p *Private) Active() bool { return p.marks != nil }

// Instance reports whether what an instance does is private.
func (p *Private) Instance(name string) bool {
	return len(p.rule.instances) > 0 && !slices.Contains(p.rule.instances, name) || slices.Contains(p.rule.withheld, name)
}

// Path reports whether a file's path makes its action private.
func (p *Private) Path(name string) bool {
	matches := func(s string) bool {
		return slices.ContainsFunc(p.rule.patterns, func(pattern string) bool {
			is, _ := path.Match(pattern, s)
			return is
		})
	}
	return len(p.rule.patterns) > 0 && (matches(name) || slices.ContainsFunc(strings.Split(strings.Trim(name, "/"), "/"), matches))
}

// Action is what of an action decides whether it is private.
type Action struct {
	Instance  string // it came by
	InputRoot digest.Digest
	Outputs   []string // paths
}

// Judge tells whether an action is private, and why: by name when it has an input or an output with such a name, or an input
// that is hidden by name itself. Inputs with such names are hidden from now on, and what is hidden by instance is shared from
// now on when an action that is shared has it as an input. With an error, which is one of tree.Load or of the disk, it is.
func (p *Private) Judge(ctx context.Context, blobs tree.Getter, a Action) (Reason, error) {
	if !p.Active() {
		return Shared, nil
	}
	shares := !p.Instance(a.Instance)
	hidden, err := p.inputs(ctx, blobs, a.InputRoot, shares && !slices.ContainsFunc(a.Outputs, p.Path))
	switch {
	case err != nil, hidden, slices.ContainsFunc(a.Outputs, p.Path):
		return ByName, err
	case !shares:
		return ByInstance, nil
	}
	return Shared, nil
}

// inputs reports whether an input root makes its action private by name; if not, and it is to be shared, all of it is.
func (p *Private) inputs(ctx context.Context, blobs tree.Getter, root digest.Digest, shares bool) (hidden bool, err error) {
	generation := p.marks.generation.Load()
	p.mu.Lock()
	known, found := p.known[root]
	p.mu.Unlock()
	if found && known.generation == generation && (known.shared || known.hidden || !shares) {
		return known.hidden, nil
	}
	t, err := tree.Load(ctx, blobs, root, tree.Limits{})
	if err != nil {
		return true, err
	}
	named, all := p.named("", t), append(t.Directories(), t.Files()...)
	hidden = len(named) > 0 || slices.ContainsFunc(all, func(d digest.Digest) bool { return p.marks.reason(d) == ByName })
	if err := p.Hide(named, ByName); err != nil {
		return true, err
	}
	shares = shares && !hidden
	if shares {
		p.marks.clear(all, ByInstance)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxVerdicts {
		clear(p.known)
	}
	p.known[root] = verdict{hidden: hidden, shared: shares, generation: generation}
	return hidden, nil
}

// Result reports whether a result has a file with a private name, also in its directories. fn made its digests, and its trees
// must be among the blobs.
func (p *Private) Result(ctx context.Context, blobs tree.Getter, fn digest.Function, r *repb.ActionResult) (bool, error) {
	if len(p.rule.patterns) == 0 {
		return false, nil
	}
	if slices.ContainsFunc(r.GetOutputFiles(), func(f *repb.OutputFile) bool { return p.Path(f.GetPath()) }) {
		return true, nil
	}
	for _, o := range r.GetOutputDirectories() {
		t, err := loadOutput(ctx, blobs, fn, o)
		if err != nil {
			return true, fmt.Errorf("read output directory %.200q: %w", o.GetPath(), err)
		}
		if len(p.named(o.GetPath(), t)) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// loadOutput reads an output directory, which is a Tree message or a root.
func loadOutput(ctx context.Context, blobs tree.Getter, fn digest.Function, o *repb.OutputDirectory) (*tree.Tree, error) {
	if o.GetTreeDigest() == nil {
		root, err := digest.FromProto(fn, o.GetRootDirectoryDigest())
		if err != nil {
			return nil, err
		}
		return tree.Load(ctx, blobs, root, tree.Limits{})
	}
	d, err := digest.FromProto(fn, o.GetTreeDigest())
	if err != nil {
		return nil, err
	}
	data, err := blobs.GetBatch(ctx, []digest.Digest{d})
	if err == nil && data[0] == nil && !d.IsEmpty() {
		err = fmt.Errorf("%s: %w", d.Short(), cas.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return tree.FromTreeProto(fn, data[0], tree.Limits{})
}

// named lists the files with private names of a tree that stands at a path.
func (p *Private) named(at string, t *tree.Tree) (named []digest.Digest) {
	if len(p.rule.patterns) == 0 {
		return nil
	}
	t.Walk(func(dir string, d *tree.Directory) {
		for _, f := range d.Files {
			if p.Path(path.Join(at, dir, f.Name)) {
				named = append(named, f.Digest)
			}
		}
	})
	return named
}

// Hide makes blobs private, whatever they were. Errors: those of the disk, and then all blobs are private until the process
// ends.
func (p *Private) Hide(ds []digest.Digest, why Reason) error {
	if len(ds) == 0 {
		return nil
	}
	if p.marks == nil {
		return fmt.Errorf("hide %d blobs: %w", len(ds), errUnmarked)
	}
	return p.marks.set(ds, why)
}

// Has reports whether a blob is private.
func (p *Private) Has(d digest.Digest) bool { return p.marks != nil && p.marks.reason(d) != Shared }
