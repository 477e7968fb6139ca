package bridge

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// fakeResults are action results in memory.
type fakeResults struct {
	mu    sync.Mutex // guards known
	known map[digest.Digest]*repb.ActionResult
}

func (f *fakeResults) Get(_ context.Context, action digest.Digest) (*repb.ActionResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.known[action]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("result of %s: %w", action.Short(), cas.ErrNotFound)
}

// lab is an Origin over a real index and a fake store.
type lab struct {
	*Origin
	t       testing.TB
	dir     string
	blobs   *casfake.Store
	assets  *index.Index
	results *fakeResults
	targets *Targets
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), blobs: casfake.New(cas.Options{}), results: &fakeResults{known: map[digest.Digest]*repb.ActionResult{}}}
	var err error
	if l.assets, err = index.Open(filepath.Join(l.dir, "index"), l.blobs, index.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.assets.Close() })
	l.open()
	return l
}

// open opens the targets and the origin; it may be called again.
func (l *lab) open() {
	l.t.Helper()
	var err error
	if l.targets != nil {
		if err := l.targets.Close(); err != nil {
			l.t.Fatal(err)
		}
	}
	if l.targets, err = OpenTargets(filepath.Join(l.dir, "targets"), TargetOptions{OnError: func(err error) { l.t.Error(err) }}); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { l.targets.Close() })
	l.Origin, err = New(Options{Assets: l.assets, Blobs: l.blobs, Results: l.results, Targets: l.targets, Dir: filepath.Join(l.dir, "tars")})
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) put(fn digest.Function, data string) digest.Digest {
	l.t.Helper()
	d := fn.Of([]byte(data))
	if err := l.blobs.Put(context.Background(), d, []byte(data)); err != nil {
		l.t.Fatal(err)
	}
	return d
}

func (l *lab) message(m proto.Message) digest.Digest {
	l.t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.put(digest.SHA256, string(data))
}

// built notes that an action of a target made result, and has its result found.
func (l *lab) built(target, mnemonic, action string, r *repb.ActionResult) digest.Digest {
	d := digest.SHA256.Of([]byte(action))
	l.results.mu.Lock()
	l.results.known[d] = r
	l.results.mu.Unlock()
	l.targets.Note(target, mnemonic, d, r)
	return d
}

// outputFile is a result with one file.
func (l *lab) outputFile(path, content string) *repb.ActionResult {
	return &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: path, Digest: l.put(digest.SHA256, content).Proto(), IsExecutable: true}}}
}

// paths lists what is below a directory, "path=content" for each file and "path->target" for symlinks.
func (l *lab) paths(root digest.Digest) map[string]string {
	l.t.Helper()
	found := map[string]string{}
	var walk func(at string, d digest.Digest)
	walk = func(at string, d digest.Digest) {
		data, err := l.blobs.Get(context.Background(), d)
		if err != nil {
			l.t.Fatal(err)
		}
		var m repb.Directory
		if err := proto.Unmarshal(data, &m); err != nil {
			l.t.Fatal(err)
		}
		for _, f := range m.Files {
			d, _ := digest.FromProto(digest.SHA256, f.Digest)
			content, err := l.blobs.Get(context.Background(), d)
			if err != nil {
				l.t.Fatal(err)
			}
			found[at+f.Name] = string(content)
		}
		for _, s := range m.Symlinks {
			found[at+s.Name] = "-> " + s.Target
		}
		for _, sub := range m.Directories {
			d, _ := digest.FromProto(digest.SHA256, sub.Digest)
			walk(at+sub.Name+"/", d)
		}
	}
	walk("", root)
	return found
}
