package journal

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/platform"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
)

// Blobs is what Compare reads commands and input trees from.
type Blobs interface {
	// GetBatch fetches blobs; the element of one that is not there is nil.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
}

// Change is one difference between two actions.
type Change struct {
	Part     string // command, directory, environment, platform, input, output, timeout, caching
	Subject  string // a path, a name; may be empty
	What     string // changed, added, removed
	Old, New string // in short; may be empty
}

// Difference is what differs between two actions.
type Difference struct {
	Changes []Change
	More    int      // changes that are not listed
	Unknown []string // what could not be compared, and why
}

// Bounds of a Difference.
const (
	maxChanges     = 200
	maxDirectories = 50_000 // read for one comparison
	maxMessage     = 16 << 20
)

func (d *Difference) add(part, subject, what, before, after string) {
	if len(d.Changes) >= maxChanges {
		d.More++
		return
	}
	d.Changes = append(d.Changes, Change{part, clip(subject), what, clip(before), clip(after)})
}

func (d *Difference) unknown(format string, args ...any) {
	d.Unknown = append(d.Unknown, clip(fmt.Sprintf(format, args...)))
}

// sides are an older and a newer thing.
type sides[T any] struct{ old, new T }

// Compare tells what differs between an older and a newer action. What the store has no more is told in Unknown. The error
// is the store's.
func Compare(ctx context.Context, blobs Blobs, older, newer *journalv1.Entry) (*Difference, error) {
	d := &Difference{}
	if older.Action == newer.Action && older.Function == newer.Function {
		return d, nil
	}
	r := reader{ctx: ctx, blobs: blobs}
	actions := sides[*repb.Action]{&repb.Action{}, &repb.Action{}}
	old, err := r.message(older.Function, older.Action, actions.old)
	if err != nil {
		return nil, err
	}
	fresh, err := r.message(newer.Function, newer.Action, actions.new)
	if err != nil {
		return nil, err
	}
	if !old || !fresh {
		return d, r.fromSums(d, older, newer)
	}
	d.actions(actions)
	if err := r.commands(d, older, newer, actions); err != nil {
		return nil, err
	}
	return d, r.trees(d, older, newer, sides[*repb.Digest]{actions.old.InputRootDigest, actions.new.InputRootDigest})
}

// fromSums compares what the entries themselves say, because an action itself is gone.
func (r *reader) fromSums(d *Difference, older, newer *journalv1.Entry) error {
	if older.Command == "" || newer.Command == "" {
		d.unknown("a known result was given for one of the two actions, which itself never came to this node")
		return nil
	}
	d.sums(older, newer)
	root := func(e *journalv1.Entry) *repb.Digest {
		one, err := parse(e.Function, e.InputRoot)
		if err != nil {
			return nil
		}
		return one.Proto()
	}
	return r.trees(d, older, newer, sides[*repb.Digest]{root(older), root(newer)})
}

// sums compares commands by their sums.
func (d *Difference) sums(older, newer *journalv1.Entry) {
	for _, part := range []struct {
		name string
		same bool
	}{
		{"command", older.ArgumentsSum == newer.ArgumentsSum},
		{"environment", older.EnvironmentSum == newer.EnvironmentSum},
		{"platform", older.PlatformSum == newer.PlatformSum},
	} {
		if !part.same {
			d.add(part.name, "", "changed", "", "")
			d.unknown("how the %s changed: the store has evicted the earlier one", part.name)
		}
	}
}

// actions compares what stands in the Action messages.
func (d *Difference) actions(a sides[*repb.Action]) {
	if a.old.DoNotCache != a.new.DoNotCache {
		d.add("caching", "do_not_cache", "changed", strconv.FormatBool(a.old.DoNotCache), strconv.FormatBool(a.new.DoNotCache))
	}
	if old, fresh := a.old.Timeout.AsDuration(), a.new.Timeout.AsDuration(); old != fresh {
		d.add("timeout", "", "changed", old.String(), fresh.String())
	}
	if string(a.old.Salt) != string(a.new.Salt) {
		d.add("caching", "salt", "changed", "", "")
	}
}

// commands compares the Command messages.
func (r *reader) commands(d *Difference, older, newer *journalv1.Entry, a sides[*repb.Action]) error {
	same := a.old.GetCommandDigest().GetHash() == a.new.GetCommandDigest().GetHash()
	commands := sides[*repb.Command]{&repb.Command{}, &repb.Command{}}
	old, err := r.message(older.Function, text(a.old.CommandDigest), commands.old)
	if err != nil {
		return err
	}
	fresh, err := r.message(newer.Function, text(a.new.CommandDigest), commands.new)
	if err != nil {
		return err
	}
	if !old || !fresh {
		if !same {
			d.sums(older, newer)
		}
		return nil
	}
	//lint:ignore SA1019 clients of API 2.0 and 2.1 set the platform of the Command only
	oldPlatform, newPlatform := platform.Effective(a.old.Platform, commands.old.Platform), platform.Effective(a.new.Platform, commands.new.Platform)
	d.named("platform", properties(oldPlatform), properties(newPlatform))
	if same {
		return nil
	}
	d.arguments(commands.old.Arguments, commands.new.Arguments)
	d.named("environment", environment(commands.old), environment(commands.new))
	if commands.old.WorkingDirectory != commands.new.WorkingDirectory {
		d.add("directory", "", "changed", commands.old.WorkingDirectory, commands.new.WorkingDirectory)
	}
	d.lists("output", outputsOf(commands.old), outputsOf(commands.new))
	return nil
}

// outputsOf are the paths a command is to make.
func outputsOf(c *repb.Command) []string {
	if len(c.OutputPaths) > 0 {
		return c.OutputPaths
	}
	//lint:ignore SA1019 clients of API 2.0 send these lists
	return slices.Concat(c.OutputFiles, c.OutputDirectories)
}

// environment is a command's variables by name.
func environment(c *repb.Command) map[string]string {
	all := map[string]string{}
	for _, v := range c.EnvironmentVariables {
		all[v.GetName()] = v.GetValue()
	}
	return all
}

// properties are a platform's properties by name; several values of one name are one value, sorted.
func properties(p *repb.Platform) map[string]string {
	values := map[string][]string{}
	for _, one := range p.GetProperties() {
		values[one.GetName()] = append(values[one.GetName()], one.GetValue())
	}
	all := map[string]string{}
	for name, list := range values {
		all[name] = strings.Join(slices.Sorted(slices.Values(list)), " ")
	}
	return all
}

// platformLines are the properties that count, as lines.
func platformLines(r platform.Request) []string {
	lines := []string{r.OSFamily, strings.Join(r.ISA, " "), r.Pool, r.Fingerprint, fmt.Sprint(r.Cores, r.MemoryBytes, r.Network, r.Local),
		r.ContainerImage, r.ChrootRoot, r.RemoteAPIsSocket, r.InputRoot}
	for _, id := range []*uint32{r.UID, r.GID} {
		if id == nil {
			lines = append(lines, "")
		} else {
			lines = append(lines, strconv.Itoa(int(*id)))
		}
	}
	return lines
}

// named compares two sets of named values.
func (d *Difference) named(part string, old, fresh map[string]string) {
	names := map[string]bool{}
	for name := range old {
		names[name] = true
	}
	for name := range fresh {
		names[name] = true
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		before, had := old[name]
		after, has := fresh[name]
		switch {
		case !had:
			d.add(part, name, "added", "", after)
		case !has:
			d.add(part, name, "removed", before, "")
		case before != after:
			d.add(part, name, "changed", before, after)
		}
	}
}

// lists compares two sets of strings.
func (d *Difference) lists(part string, old, fresh []string) {
	before, after := map[string]string{}, map[string]string{}
	for _, s := range old {
		before[s] = ""
	}
	for _, s := range fresh {
		after[s] = ""
	}
	d.named(part, before, after)
}

// arguments compares two command lines: what stands between an equal begin and an equal end.
func (d *Difference) arguments(old, fresh []string) {
	begin, end := 0, 0
	for begin < len(old) && begin < len(fresh) && old[begin] == fresh[begin] {
		begin++
	}
	for end < len(old)-begin && end < len(fresh)-begin && old[len(old)-1-end] == fresh[len(fresh)-1-end] {
		end++
	}
	before, after := strings.Join(old[begin:len(old)-end], " "), strings.Join(fresh[begin:len(fresh)-end], " ")
	where := fmt.Sprintf("argument %d", begin)
	switch {
	case len(old)-end == begin && len(fresh)-end == begin:
	case len(old)-end == begin:
		d.add("command", where, "added", "", after)
	case len(fresh)-end == begin:
		d.add("command", where, "removed", before, "")
	default:
		d.add("command", where, "changed", before, after)
	}
}

// text is a digest as entries spell it.
func text(p *repb.Digest) string { return p.GetHash() + "/" + strconv.FormatInt(p.GetSizeBytes(), 10) }

// parse reads a digest as entries spell it.
func parse(function, s string) (digest.Digest, error) {
	for _, fn := range digest.Functions() {
		if fn.String() == function {
			return digest.ParseString(fn, s)
		}
	}
	return digest.Digest{}, fmt.Errorf("digest function %.20q is not known", function)
}

// reader reads messages from the store.
type reader struct {
	ctx   context.Context // of one Compare
	blobs Blobs
	read  int // directories
}

// message reads one message; false when the store does not have it, or it is none.
func (r *reader) message(function, name string, into proto.Message) (bool, error) {
	d, err := parse(function, name)
	if err != nil || d.Size() > maxMessage {
		return false, nil
	}
	if d.IsEmpty() {
		return true, nil
	}
	data, err := r.blobs.GetBatch(r.ctx, []digest.Digest{d})
	if err != nil {
		return false, fmt.Errorf("compare actions: %w", err)
	}
	return data[0] != nil && proto.Unmarshal(data[0], into) == nil, nil
}

// trees compares two input trees, reading only directories that differ.
func (r *reader) trees(d *Difference, older, newer *journalv1.Entry, roots sides[*repb.Digest]) error {
	for open := []pair{{"", roots}}; len(open) > 0; {
		p := open[0]
		open = open[1:]
		if p.old.GetHash() == p.new.GetHash() && older.Function == newer.Function {
			continue
		}
		if r.read += 2; r.read > maxDirectories || len(open) > maxDirectories {
			d.unknown("inputs below %s: the trees are too large to compare", cmp.Or(p.path, "the root"))
			return nil
		}
		dirs := sides[*repb.Directory]{&repb.Directory{}, &repb.Directory{}}
		old, err := r.message(older.Function, text(p.old), dirs.old)
		if err != nil {
			return err
		}
		fresh, err := r.message(newer.Function, text(p.new), dirs.new)
		if err != nil {
			return err
		}
		if !old || !fresh {
			d.add("input", cmp.Or(p.path, "tree"), "changed", "", "")
			d.unknown("what changed below %s: the store has evicted that directory", cmp.Or(p.path, "the input root"))
			continue
		}
		open = append(open, d.directory(p.path, dirs)...)
	}
	return nil
}

// pair is a directory that both sides have.
type pair struct {
	path string
	sides[*repb.Digest]
}

// directory compares two directories and gives the subdirectories that must be looked into.
func (d *Difference) directory(path string, dirs sides[*repb.Directory]) (deeper []pair) {
	within := func(name string) string {
		if path == "" {
			return name
		}
		return path + "/" + name
	}
	old, fresh := nodes(dirs.old), nodes(dirs.new)
	for _, name := range names(old, fresh) {
		before, had := old[name]
		after, has := fresh[name]
		switch {
		case !had:
			d.add("input", within(name)+after.mark(), "added", "", after.text)
		case !has:
			d.add("input", within(name)+before.mark(), "removed", before.text, "")
		case before.directory != nil && after.directory != nil:
			deeper = append(deeper, pair{within(name), sides[*repb.Digest]{before.directory, after.directory}})
		case before.text == after.text && before.extra != after.extra:
			d.add("input", within(name), "changed", orPlain(before.extra), orPlain(after.extra))
		case before.text != after.text:
			d.add("input", within(name), "changed", before.text, after.text)
		}
	}
	if !proto.Equal(dirs.old.NodeProperties, dirs.new.NodeProperties) {
		d.add("input", within("."), "changed", "", "properties of the directory")
	}
	return deeper
}

// node is one child of a directory.
type node struct {
	text      string // kind and content
	extra     string // properties
	directory *repb.Digest
}

func orPlain(extra string) string { return cmp.Or(extra, "plain") }

func (n node) mark() string {
	if n.directory != nil {
		return "/"
	}
	return ""
}

// nodes are the children of a directory by name.
func nodes(m *repb.Directory) map[string]node {
	all := map[string]node{}
	for _, f := range m.Files {
		var extra []string
		if f.IsExecutable {
			extra = append(extra, "executable")
		}
		for _, p := range f.GetNodeProperties().GetProperties() {
			extra = append(extra, p.GetName()+"="+p.GetValue())
		}
		if mode := f.GetNodeProperties().GetUnixMode(); mode != nil {
			extra = append(extra, fmt.Sprintf("mode %o", mode.GetValue()))
		}
		if mtime := f.GetNodeProperties().GetMtime(); mtime != nil {
			extra = append(extra, "mtime "+mtime.AsTime().Format("2006-01-02 15:04:05"))
		}
		all[f.Name] = node{text: short(f.Digest), extra: strings.Join(extra, ", ")}
	}
	for _, s := range m.Symlinks {
		all[s.Name] = node{text: "symlink to " + s.Target}
	}
	for _, sub := range m.Directories {
		all[sub.Name] = node{text: "directory " + short(sub.Digest), directory: sub.Digest}
	}
	return all
}

// names are the names of two sets of children, sorted.
func names(sets ...map[string]node) (all []string) {
	for _, set := range sets {
		for name := range set {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// short is a digest for people.
func short(p *repb.Digest) string {
	hash := p.GetHash()
	return fmt.Sprintf("%s (%d bytes)", hash[:min(len(hash), 8)], p.GetSizeBytes())
}
