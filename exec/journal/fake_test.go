package journal

import (
	"context"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
)

// fakeBlobs is a store that counts what is read.
type fakeBlobs struct {
	mu      sync.Mutex // guards all below
	content map[digest.Digest][]byte
	reads   int
}

func newBlobs() *fakeBlobs { return &fakeBlobs{content: map[digest.Digest][]byte{}} }

func (f *fakeBlobs) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([][]byte, len(ds))
	for i, d := range ds {
		f.reads++
		out[i] = f.content[d]
	}
	return out, nil
}

func (f *fakeBlobs) put(t testing.TB, m proto.Message) *repb.Digest {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := digest.SHA256.Of(data)
	f.content[d] = data
	return d.Proto()
}

// tree stores a tree of files given as path and content; a path's directories are made.
func (f *fakeBlobs) tree(t testing.TB, files map[string]string) *repb.Digest {
	t.Helper()
	root := &repb.Directory{}
	below := map[string]map[string]string{}
	for path, content := range files {
		if dir, rest, deep := cutPath(path); deep {
			if below[dir] == nil {
				below[dir] = map[string]string{}
			}
			below[dir][rest] = content
			continue
		}
		root.Files = append(root.Files, &repb.FileNode{Name: path, Digest: digest.SHA256.Of([]byte(content)).Proto()})
	}
	for dir, files := range below {
		root.Directories = append(root.Directories, &repb.DirectoryNode{Name: dir, Digest: f.tree(t, files)})
	}
	return f.put(t, root)
}

func cutPath(path string) (dir, rest string, deep bool) {
	for i := range path {
		if path[i] == '/' {
			return path[:i], path[i+1:], true
		}
	}
	return "", path, false
}

// work is one action of a test.
type work struct {
	target  string
	args    []string
	env     map[string]string
	pool    string
	files   map[string]string
	uncache bool
}

// ending is a flight of w that was run and is over.
func (f *fakeBlobs) ending(t testing.TB, w work) flight.Ending {
	t.Helper()
	c := &repb.Command{Arguments: append([]string{"cc"}, w.args...), OutputPaths: []string{"out/" + w.target[2:] + ".o"}}
	for name, value := range w.env {
		c.EnvironmentVariables = append(c.EnvironmentVariables, &repb.Command_EnvironmentVariable{Name: name, Value: value})
	}
	a := &repb.Action{CommandDigest: f.put(t, c), InputRootDigest: f.tree(t, w.files), DoNotCache: w.uncache}
	if w.pool != "" {
		a.Platform = &repb.Platform{Properties: []*repb.Platform_Property{{Name: "Pool", Value: w.pool}}}
	}
	d, err := digest.FromProto(digest.SHA256, f.put(t, a))
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := action.Decode(t.Context(), decodable{f}, d, action.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return flight.Ending{
		Action: decoded, Created: time.Now(), Lookup: flight.Lookup{Asked: true, Err: flight.ErrNotCached},
		Request: flight.Request{Action: d, Meta: flight.Meta{Target: w.target, Mnemonic: "CppCompile", Invocation: "i"}},
		Response: &repb.ExecuteResponse{Status: &spb.Status{}, Message: "ran on ana", Result: &repb.ActionResult{
			OutputFiles:       []*repb.OutputFile{{Path: "out/" + w.target[2:] + ".o", Digest: digest.SHA256.Of([]byte("o")).Proto()}},
			ExecutionMetadata: &repb.ExecutedActionMetadata{Worker: "ana"},
		}},
	}
}

// decodable is fakeBlobs as Decode wants it.
type decodable struct{ *fakeBlobs }

func (decodable) Missing(context.Context, []digest.Digest) ([]digest.Digest, error) { return nil, nil }
