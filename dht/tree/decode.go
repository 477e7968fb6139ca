package tree

import (
	"fmt"
	"strings"
	"unicode/utf8"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Decode reads one Directory message whose digests were made by fn and checks everything that can be
// seen in it alone. Entries may be unsorted. data is copied. Errors are *InvalidError.
func Decode(fn digest.Function, data []byte) (*Directory, error) {
	d := &Directory{raw: string(data)}
	if err := d.allocate(); err != nil {
		return nil, err
	}
	r := reader{fn: fn}
	for rest := d.raw; rest != ""; {
		var f field
		f, rest, _ = next(rest) // allocate has seen every field
		var err error
		switch f.tag {
		case tag1Bytes:
			d.Files = append(d.Files, File{})
			err = r.file(f.bytes, &d.Files[len(d.Files)-1])
		case tag2Bytes:
			d.Directories = append(d.Directories, Subdirectory{})
			err = r.subdirectory(f.bytes, &d.Directories[len(d.Directories)-1])
		case tag3Bytes:
			d.Symlinks = append(d.Symlinks, Symlink{})
			err = r.symlink(f.bytes, &d.Symlinks[len(d.Symlinks)-1])
		case tag5Bytes:
			d.Properties, err = r.properties("", d.Properties, f.bytes)
		}
		if err != nil {
			return nil, err
		}
	}
	if name := d.duplicate(); name != "" {
		return nil, &InvalidError{name, "the name occurs twice in its directory"}
	}
	return d, nil
}

// allocate counts the nodes and makes room for exactly as many.
func (d *Directory) allocate() error {
	var files, directories, symlinks int
	for rest := d.raw; rest != ""; {
		f, after, ok := next(rest)
		if !ok {
			return &InvalidError{"", "it is not a Directory message"}
		}
		rest = after
		switch f.tag {
		case tag1Bytes:
			files++
		case tag2Bytes:
			directories++
		case tag3Bytes:
			symlinks++
		}
	}
	if files > 0 {
		d.Files = make([]File, 0, files)
	}
	if directories > 0 {
		d.Directories = make([]Subdirectory, 0, directories)
	}
	if symlinks > 0 {
		d.Symlinks = make([]Symlink, 0, symlinks)
	}
	return nil
}

// reader reads the nodes of one Directory.
type reader struct {
	fn digest.Function
	// The last properties seen, encoded and decoded: nodes of one directory mostly share theirs.
	lastRaw string
	last    *repb.NodeProperties
}

// parts collects a node's fields. A message inside that occurs twice is merged, scalars take their
// last value: protobuf's rules.
type parts struct {
	name, target, hash string
	size               int64
	digested           bool
	executable         bool
	properties         *repb.NodeProperties
}

func (r *reader) file(message string, out *File) error {
	var p parts
	for rest := message; rest != ""; {
		f, after, ok := next(rest)
		if !ok {
			return malformed(p.name)
		}
		rest = after
		var err error
		switch f.tag {
		case tag1Bytes:
			p.name = f.bytes
		case tag2Bytes:
			err = p.digest(f.bytes)
		case tag4Varint:
			p.executable = f.number != 0
		case tag6Bytes:
			p.properties, err = r.properties(p.name, p.properties, f.bytes)
		}
		if err != nil {
			return err
		}
	}
	d, err := r.check(&p)
	*out = File{Name: p.name, Digest: d, Executable: p.executable, Properties: p.properties}
	return err
}

func (r *reader) subdirectory(message string, out *Subdirectory) error {
	var p parts
	for rest := message; rest != ""; {
		f, after, ok := next(rest)
		if !ok {
			return malformed(p.name)
		}
		rest = after
		switch f.tag {
		case tag1Bytes:
			p.name = f.bytes
		case tag2Bytes:
			if err := p.digest(f.bytes); err != nil {
				return err
			}
		}
	}
	d, err := r.check(&p)
	*out = Subdirectory{Name: p.name, Digest: d}
	return err
}

func (r *reader) symlink(message string, out *Symlink) error {
	var p parts
	for rest := message; rest != ""; {
		f, after, ok := next(rest)
		if !ok {
			return malformed(p.name)
		}
		rest = after
		switch f.tag {
		case tag1Bytes:
			p.name = f.bytes
		case tag2Bytes:
			p.target = f.bytes
		case tag4Bytes:
			var err error
			if p.properties, err = r.properties(p.name, p.properties, f.bytes); err != nil {
				return err
			}
		}
	}
	if reason := unsafeName(p.name); reason != "" {
		return &InvalidError{p.name, reason}
	}
	if reason := unsafeTarget(p.target); reason != "" {
		return &InvalidError{p.name, reason}
	}
	*out = Symlink{Name: p.name, Target: p.target, Properties: p.properties}
	return nil
}

// digest reads the fields of a Digest message.
func (p *parts) digest(message string) error {
	p.digested = true
	for rest := message; rest != ""; {
		f, after, ok := next(rest)
		if !ok {
			return malformed(p.name)
		}
		rest = after
		switch f.tag {
		case tag1Bytes:
			p.hash = f.bytes
		case tag2Varint:
			p.size = int64(f.number)
		}
	}
	return nil
}

// check validates the name and the digest of a file or subdirectory.
func (r *reader) check(p *parts) (digest.Digest, error) {
	if reason := unsafeName(p.name); reason != "" {
		return digest.Digest{}, &InvalidError{p.name, reason}
	}
	if !p.digested {
		return digest.Digest{}, &InvalidError{p.name, "it has no digest"}
	}
	d, err := digest.Parse(r.fn, p.hash, p.size)
	switch {
	case err != nil && len(p.hash) > 2*digest.HexSize:
		return d, &InvalidError{p.name, fmt.Sprintf("its hash has %d characters", len(p.hash))}
	case err != nil:
		return d, &InvalidError{p.name, err.Error()}
	case d.Size() == 0 && !d.IsEmpty():
		return d, &InvalidError{p.name, "its size is 0 but its hash is not that of the empty blob"}
	}
	return d, nil
}

// properties decodes NodeProperties of the node called name, merging into what was there before.
func (r *reader) properties(name string, before *repb.NodeProperties, raw string) (*repb.NodeProperties, error) {
	if before == nil && r.last != nil && raw == r.lastRaw {
		return r.last, nil
	}
	p := &repb.NodeProperties{}
	if before != nil {
		proto.Merge(p, before)
	}
	if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal([]byte(raw), p); err != nil {
		return nil, &InvalidError{name, "its node properties are malformed"}
	}
	if before == nil {
		r.lastRaw, r.last = raw, p
	}
	return p, nil
}

func malformed(name string) error { return &InvalidError{name, "the node is malformed"} }

// unsafeName tells why a name must not be created, "" if it may.
func unsafeName(name string) string {
	switch {
	case name == "":
		return "it has a node without a name"
	case name == "." || name == "..":
		return "the name is not allowed"
	case len(name) > MaxName:
		return fmt.Sprintf("the name has %d bytes, at most %d are allowed", len(name), MaxName)
	case strings.IndexByte(name, '/') >= 0:
		return "the name has a slash"
	case strings.IndexByte(name, 0) >= 0:
		return "the name has a NUL byte"
	case !utf8.ValidString(name):
		return "the name is not UTF-8"
	}
	return ""
}

// unsafeTarget tells why a symlink cannot have this target, "" if it can.
func unsafeTarget(target string) string {
	switch {
	case target == "":
		return "the symlink has no target"
	case len(target) > MaxTarget:
		return fmt.Sprintf("the target has %d bytes, at most %d are allowed", len(target), MaxTarget)
	case strings.IndexByte(target, 0) >= 0:
		return "the target has a NUL byte"
	case !utf8.ValidString(target):
		return "the target is not UTF-8"
	}
	return ""
}

// duplicate gives a name that occurs twice, "" if there is none.
func (d *Directory) duplicate() string {
	if d.sorted() {
		return d.meet()
	}
	seen := make(map[string]struct{}, d.entries())
	for name := range d.names {
		if _, found := seen[name]; found {
			return name
		}
		seen[name] = struct{}{}
	}
	return ""
}

// names yields the names of all nodes.
func (d *Directory) names(yield func(string) bool) {
	for i := range d.Files {
		if !yield(d.Files[i].Name) {
			return
		}
	}
	for i := range d.Directories {
		if !yield(d.Directories[i].Name) {
			return
		}
	}
	for i := range d.Symlinks {
		if !yield(d.Symlinks[i].Name) {
			return
		}
	}
}

// sorted reports whether each list is sorted and without duplicates, as the protocol wants.
func (d *Directory) sorted() bool {
	for i := 1; i < len(d.Files); i++ {
		if d.Files[i-1].Name >= d.Files[i].Name {
			return false
		}
	}
	for i := 1; i < len(d.Directories); i++ {
		if d.Directories[i-1].Name >= d.Directories[i].Name {
			return false
		}
	}
	for i := 1; i < len(d.Symlinks); i++ {
		if d.Symlinks[i-1].Name >= d.Symlinks[i].Name {
			return false
		}
	}
	return true
}

// meet gives a name that two of the three sorted lists share, "" if there is none.
func (d *Directory) meet() string {
	f, s := 0, 0
	for i := range d.Directories {
		name := d.Directories[i].Name
		for ; f < len(d.Files) && d.Files[f].Name < name; f++ {
		}
		for ; s < len(d.Symlinks) && d.Symlinks[s].Name < name; s++ {
		}
		if f < len(d.Files) && d.Files[f].Name == name || s < len(d.Symlinks) && d.Symlinks[s].Name == name {
			return name
		}
	}
	f = 0
	for i := range d.Symlinks {
		name := d.Symlinks[i].Name
		for ; f < len(d.Files) && d.Files[f].Name < name; f++ {
		}
		if f < len(d.Files) && d.Files[f].Name == name {
			return name
		}
	}
	return ""
}
