package collect

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
)

// fakeBlobs is a store in memory. PutFile consumes the file, as the real one may.
type fakeBlobs struct {
	mu   sync.Mutex
	data map[digest.Digest][]byte
	read []string // paths given to PutFile
	fail error    // of PutFile
}

func newFakeBlobs() *fakeBlobs { return &fakeBlobs{data: map[digest.Digest][]byte{}} }

func (b *fakeBlobs) put(data []byte) digest.Digest {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := digest.SHA256.Of(data)
	b.data[d] = data
	return d
}

func (b *fakeBlobs) get(p *repb.Digest) []byte {
	d, err := digest.FromProto(digest.SHA256, p)
	if err != nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data[d]
}

func (b *fakeBlobs) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([][]byte, len(ds))
	for i, d := range ds {
		if out[i] = b.data[d]; d.IsEmpty() {
			out[i] = []byte{}
		}
	}
	return out, nil
}

func (b *fakeBlobs) Missing(_ context.Context, ds []digest.Digest) (missing []digest.Digest, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range ds {
		if _, ok := b.data[d]; !ok && !d.IsEmpty() {
			missing = append(missing, d)
		}
	}
	return missing, nil
}

func (b *fakeBlobs) PutFile(_ context.Context, fn digest.Function, path string) (digest.Digest, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return digest.Digest{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read = append(b.read, path)
	if b.fail != nil {
		return digest.Digest{}, b.fail
	}
	b.data[fn.Of(data)] = data
	return fn.Of(data), os.Remove(path)
}

func (b *fakeBlobs) PutAll(_ context.Context, ds []digest.Digest, data [][]byte) error {
	for i := range ds {
		b.put(data[i])
	}
	return nil
}

// run is a finished run under construction: an input tree, and an upper directory to be filled.
type run struct {
	t      *testing.T
	blobs  *fakeBlobs
	source Source
	action *action.Action
}

// newRun has an input tree of the given files; a content "-> x" makes a link to x, "" in a path ending
// in a slash an empty directory, and a leading "#!" an executable.
func newRun(t *testing.T, input map[string]string) *run {
	t.Helper()
	r := &run{t: t, blobs: newFakeBlobs()}
	dir := t.TempDir()
	r.source = Source{
		Upper: filepath.Join(dir, "upper"), Scratch: filepath.Join(dir, "scratch"),
		Lowers: []string{filepath.Join(dir, "lower")}, InputTime: time.Unix(1321009871, 0), InputMode: 0o444,
	}
	for _, d := range []string{r.source.Upper, r.source.Scratch, r.source.Lowers[0]} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if r.source.Input, err = tree.Load(t.Context(), r.blobs, r.blobs.directory(t, "", input), tree.DefaultLimits()); err != nil {
		t.Fatal(err)
	}
	r.action = &action.Action{Digest: digest.SHA256.Of([]byte("action"))}
	return r
}

func (b *fakeBlobs) directory(t testing.TB, at string, files map[string]string) digest.Digest {
	m := &repb.Directory{}
	subs := map[string]bool{}
	for p, content := range files {
		rest, inside := strings.CutPrefix(p, at)
		if !inside || rest == "" {
			continue
		}
		name, _, deeper := strings.Cut(rest, "/")
		switch {
		case deeper:
			subs[name] = true
		case strings.HasPrefix(content, "-> "):
			m.Symlinks = append(m.Symlinks, &repb.SymlinkNode{Name: name, Target: content[3:]})
		default:
			m.Files = append(m.Files, &repb.FileNode{
				Name: name, Digest: b.put([]byte(content)).Proto(), IsExecutable: strings.HasPrefix(content, "#!"),
			})
		}
	}
	for name := range subs {
		d := b.directory(t, at+name+"/", files)
		m.Directories = append(m.Directories, &repb.DirectoryNode{Name: name, Digest: d.Proto()})
	}
	// The encoder under test sorts; here the same order is needed for equal digests.
	sorted, err := (&encoder{fn: digest.SHA256, dirs: map[digest.Digest]*directory{}}).add(m)
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil || digest.SHA256.Of(data) != sorted {
		t.Fatal("directory is not canonical", err)
	}
	return b.put(data)
}

func (r *run) upper(rel string) string { return filepath.Join(r.source.Upper, filepath.FromSlash(rel)) }

// write makes what the action wrote, in the notation of newRun.
func (r *run) write(files map[string]string) {
	r.t.Helper()
	for p, content := range files {
		full := r.upper(p)
		if strings.HasSuffix(p, "/") {
			r.must(os.MkdirAll(full, 0o755))
			continue
		}
		r.must(os.MkdirAll(filepath.Dir(full), 0o755))
		mode := os.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		if target, link := strings.CutPrefix(content, "-> "); link {
			r.must(os.Symlink(target, full))
		} else {
			r.must(os.WriteFile(full, []byte(content), mode))
		}
	}
}

func (r *run) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// outputs sets what the action asks for; paths are relative to the root.
func (r *run) outputs(paths ...string) *run {
	r.action.Outputs = nil
	for _, p := range paths {
		r.action.Outputs = append(r.action.Outputs, action.Output{Path: p, Clean: path.Clean(p)})
	}
	return r
}

func (r *run) collect() *repb.ActionResult {
	r.t.Helper()
	result, err := Outputs(r.t.Context(), r.blobs, r.action, r.source, Limits{})
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

// list reads an output directory back, by its Tree and by its Directory messages as far as it has them.
func (r *run) list(o *repb.OutputDirectory) map[string]string {
	r.t.Helper()
	var byTree, byRoot map[string]string
	if o.TreeDigest != nil {
		m := &repb.Tree{}
		r.must(proto.Unmarshal(r.blobs.get(o.TreeDigest), m))
		dirs := map[string]*repb.Directory{}
		for _, c := range m.Children {
			data, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
			r.must(err)
			hash := digest.SHA256.Of(data).Hex()
			if dirs[hash] != nil {
				r.t.Error("a directory is in the tree twice")
			}
			dirs[hash] = c
		}
		byTree = map[string]string{}
		r.flatten("", m.Root, byTree, func(p *repb.Digest) *repb.Directory { return dirs[p.Hash] })
	}
	if o.RootDirectoryDigest != nil {
		get := func(p *repb.Digest) *repb.Directory {
			m := &repb.Directory{}
			if data := r.blobs.get(p); data == nil && p.SizeBytes != 0 {
				return nil
			} else if err := proto.Unmarshal(data, m); err != nil {
				return nil
			}
			return m
		}
		byRoot = map[string]string{}
		r.flatten("", get(o.RootDirectoryDigest), byRoot, get)
	}
	if byTree != nil && byRoot != nil && !sameMap(byTree, byRoot) {
		r.t.Errorf("tree %v and directories %v differ", byTree, byRoot)
	}
	if byTree == nil {
		return byRoot
	}
	return byTree
}

func (r *run) flatten(at string, m *repb.Directory, out map[string]string, get func(*repb.Digest) *repb.Directory) {
	if m == nil {
		r.t.Errorf("directory %q is missing", at)
		return
	}
	for _, f := range m.Files {
		data := r.blobs.get(f.Digest)
		if data == nil && f.Digest.SizeBytes != 0 {
			r.t.Errorf("content of %q is missing", at+f.Name)
		}
		if f.IsExecutable != strings.HasPrefix(string(data), "#!") {
			r.t.Errorf("%q: executable is %v", at+f.Name, f.IsExecutable)
		}
		out[at+f.Name] = string(data)
	}
	for _, s := range m.Symlinks {
		out[at+s.Name] = "-> " + s.Target
	}
	for _, d := range m.Directories {
		out[at+d.Name+"/"] = ""
		r.flatten(at+d.Name+"/", get(d.Digest), out, get)
	}
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}
