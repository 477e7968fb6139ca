package run

import (
	"context"
	"errors"
	"os"
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
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/exec/stage"
)

// fakeBlobs is a store in memory, for the runner and for the tree cache. PutFile consumes the file.
type fakeBlobs struct {
	mu   sync.Mutex
	data map[digest.Digest][]byte
	gets int   // calls of GetBatch
	fail error // of PutFile
}

func newFakeBlobs() *fakeBlobs { return &fakeBlobs{data: map[digest.Digest][]byte{}} }

func (b *fakeBlobs) put(data []byte) digest.Digest {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := digest.SHA256.Of(data)
	b.data[d] = data
	return d
}

func (b *fakeBlobs) lose(d digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.data, d)
}

func (b *fakeBlobs) get(p *repb.Digest) string {
	d, err := digest.FromProto(digest.SHA256, p)
	if err != nil {
		return "no digest"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.data[d])
}

func (b *fakeBlobs) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gets++
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

func (b *fakeBlobs) Pin(ds []digest.Digest) (func(), []digest.Digest) {
	missing, _ := b.Missing(context.Background(), ds)
	return func() {}, missing
}

func (b *fakeBlobs) Materialize(_ context.Context, d digest.Digest, path string, executable bool) error {
	mode := os.FileMode(0o444)
	if executable {
		mode = 0o555
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return os.WriteFile(path, b.data[d], mode)
}

func (b *fakeBlobs) PutFile(_ context.Context, fn digest.Function, path string) (digest.Digest, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return digest.Digest{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return digest.Digest{}, b.fail
	}
	b.data[fn.Of(data)] = data
	return fn.Of(data), os.Remove(path)
}

func (b *fakeBlobs) PutAll(_ context.Context, _ []digest.Digest, data [][]byte) error {
	for i := range data {
		b.put(data[i])
	}
	return nil
}

// directory stores an input tree given as path to content; "#!" makes it executable.
func (b *fakeBlobs) directory(t testing.TB, files map[string]string) digest.Digest {
	t.Helper()
	builder := tree.NewBuilder(digest.SHA256)
	var build func(at string) digest.Digest
	build = func(at string) digest.Digest {
		dir, subs := &tree.Directory{}, map[string]bool{}
		for p, content := range files {
			rest, inside := strings.CutPrefix(p, at)
			name, _, deeper := strings.Cut(rest, "/")
			if !inside {
				continue
			}
			if deeper {
				subs[name] = true
				continue
			}
			dir.Files = append(dir.Files, tree.File{Name: name, Digest: b.put([]byte(content)), Executable: strings.HasPrefix(content, "#!")})
		}
		for name := range subs {
			dir.Directories = append(dir.Directories, tree.Subdirectory{Name: name, Digest: build(at + name + "/")})
		}
		d, err := builder.Add(dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	root := build("")
	for _, data := range builder.Blobs {
		b.put(data)
	}
	return root
}

// fakeBox runs a function of the test in place of a command.
type fakeBox struct {
	mu     sync.Mutex
	specs  []sandbox.Spec
	script func(ctx context.Context, c *command) error
}

// command is what a script acts on and answers.
type command struct {
	spec   sandbox.Spec
	upper  string
	result sandbox.Result
}

func (b *fakeBox) Tier() sandbox.Tier { return sandbox.TierA }

func (b *fakeBox) Run(ctx context.Context, spec sandbox.Spec) (sandbox.Result, error) {
	b.mu.Lock()
	b.specs = append(b.specs, spec)
	b.mu.Unlock()
	upper := filepath.Join(spec.Scratch, "upper")
	for _, d := range append([]string{""}, spec.Directories...) {
		if err := os.MkdirAll(filepath.Join(upper, d), 0o755); err != nil {
			return sandbox.Result{}, err
		}
	}
	c := &command{spec: spec, upper: upper}
	c.result = sandbox.Result{
		Upper: upper, StdoutPath: filepath.Join(spec.Scratch, "stdout"), StderrPath: filepath.Join(spec.Scratch, "stderr"), Started: time.Now(),
	}
	err := b.script(ctx, c)
	c.result.Finished = c.result.Started.Add(3 * time.Second)
	if ctx.Err() != nil {
		c.result.Reason = sandbox.Cancelled
	}
	return c.result, err
}

func (c *command) write(rel, content string) error {
	return os.WriteFile(filepath.Join(c.upper, rel), []byte(content), 0o644)
}

func (c *command) print(stdout, stderr string) error {
	return errors.Join(os.WriteFile(c.result.StdoutPath, []byte(stdout), 0o644), os.WriteFile(c.result.StderrPath, []byte(stderr), 0o644))
}

// observer notes what it is told.
type observer struct {
	mu       sync.Mutex
	streams  []string
	existed  bool
	metadata []*repb.ExecutedActionMetadata
}

func (o *observer) Output(stdout, stderr string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streams = append(o.streams, stdout, stderr)
	_, err1 := os.Stat(stdout)
	_, err2 := os.Stat(stderr)
	o.existed = err1 == nil && err2 == nil
}

func (o *observer) Metadata(m *repb.ExecutedActionMetadata) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.metadata = append(o.metadata, proto.CloneOf(m))
}

// stand is a runner with everything around it.
type stand struct {
	t        *testing.T
	dir      string
	blobs    *fakeBlobs
	cache    *stage.Cache
	box      *fakeBox
	runner   *Runner
	observer *observer
}

func newStand(t *testing.T, opt Options) *stand {
	t.Helper()
	s := &stand{t: t, dir: t.TempDir(), blobs: newFakeBlobs(), box: &fakeBox{}, observer: &observer{}}
	s.box.script = func(context.Context, *command) error { return nil }
	s.open(s.box, opt, stage.Options{})
	return s
}

func (s *stand) open(box Box, opt Options, staging stage.Options) {
	s.t.Helper()
	var err error
	if s.cache, err = stage.Open(filepath.Join(s.dir, "stage"), s.blobs, staging); err != nil {
		s.t.Fatal(err)
	}
	opt.Dir, opt.Worker = filepath.Join(s.dir, "run"), "ana"
	if s.runner, err = Open(s.blobs, s.cache, box, opt); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.close)
}

// close ends everything and checks that nothing is left behind.
func (s *stand) close() {
	if err := s.runner.Close(); err != nil {
		s.t.Error(err)
	}
	if list, _ := os.ReadDir(filepath.Join(s.dir, "run", scratchDir)); len(list) != 0 {
		s.t.Errorf("%d scratch directories are left", len(list))
	}
	if err := s.cache.Close(); err != nil {
		s.t.Error(err)
	}
	// Only now: a sample of the last run may have been under comparison.
	if in := s.cache.Stat().InUse; in != 0 {
		s.t.Errorf("%d layers are still in use", in)
	}
}

// action wants the given outputs from a command over input files.
func (s *stand) action(input map[string]string, outputs ...string) *action.Action {
	a := &action.Action{Digest: digest.SHA256.Of([]byte("action")), InputRoot: s.blobs.directory(s.t, input), Arguments: []string{"cmd"}}
	for _, o := range outputs {
		a.Outputs = append(a.Outputs, action.Output{Path: o, Clean: o})
	}
	return a
}
