package share_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/share"
)

// owned is a store and what of it is private.
type owned struct {
	t       *testing.T
	dir     string
	rule    share.Rule
	store   *casfake.Store
	private *share.Private
}

// newOwned shares the instance "open" only, no instance "held", and nothing of *.key.
func newOwned(t *testing.T) *owned {
	rule, err := share.ParseRule([]string{"open", "held"}, []string{"*.key", "vault/*", "instance:held"})
	if err != nil {
		t.Fatal(err)
	}
	o := &owned{t: t, dir: t.TempDir(), rule: rule, store: casfake.New(cas.Options{MaxBytes: 1 << 30})}
	o.open(o.dir)
	return o
}

func (o *owned) open(dir string) {
	o.t.Helper()
	var err error
	if o.private, err = share.OpenPrivate(dir, o.rule, o.store); err != nil {
		o.t.Fatal(err)
	}
	p := o.private
	o.t.Cleanup(func() { p.Close() })
}

func (o *owned) behind() share.Hiding {
	return share.Hiding{Whole: o.store, Private: o.private, Why: share.ByInstance}
}
func (o *owned) named() share.Revealing { return share.Revealing{Whole: o.store, Private: o.private} }
func (o *owned) mesh() share.Veiled     { return share.Veiled{Whole: o.store, Private: o.private} }

func blobOf(text string) cas.Blob {
	return cas.Blob{Digest: digest.SHA256.Of([]byte(text)), Data: []byte(text)}
}

// put stores a text and gives its digest.
func (o *owned) put(to share.Whole, text string) digest.Digest {
	o.t.Helper()
	b := blobOf(text)
	if errs := to.PutBatch(o.t.Context(), []cas.Blob{b}); errs != nil {
		o.t.Fatal(errs)
	}
	return b.Digest
}

// file stores a text as a file.
func (o *owned) file(to share.Whole, text string) digest.Digest {
	o.t.Helper()
	path := filepath.Join(o.t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	d, err := to.PutFile(o.t.Context(), digest.SHA256, path)
	if err != nil {
		o.t.Fatal(err)
	}
	return d
}

// stream stores a text as a stream.
func (o *owned) stream(to share.Whole, text string) digest.Digest {
	o.t.Helper()
	b := blobOf(text)
	w, err := to.NewWriter(o.t.Context(), b.Digest)
	if err == nil {
		_, err = w.Write(b.Data)
	}
	if err == nil {
		err = w.Commit()
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return b.Digest
}

// directory stores a directory.
func (o *owned) directory(to share.Whole, m *repb.Directory) digest.Digest {
	o.t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		o.t.Fatal(err)
	}
	return o.put(to, string(data))
}

// want checks what is private.
func (o *owned) want(what string, d digest.Digest, private bool) {
	o.t.Helper()
	if got := o.private.Has(d); got != private {
		o.t.Errorf("%s: private %v, want %v", what, got, private)
	}
	missing, err := o.mesh().Missing(o.t.Context(), []digest.Digest{d})
	if err != nil || (len(missing) > 0) != private {
		o.t.Errorf("%s: missing for the mesh %v, want %v, %v", what, len(missing) > 0, private, err)
	}
	data, err := o.mesh().GetBatch(o.t.Context(), []digest.Digest{d})
	if err != nil || (data[0] == nil) != private {
		o.t.Errorf("%s: given to the mesh %v, want %v, %v", what, data[0] != nil, !private, err)
	}
	if r, err := o.mesh().NewReader(o.t.Context(), d); (err != nil) != private {
		o.t.Errorf("%s: read by the mesh %v, want %v", what, err == nil, !private)
	} else if err == nil {
		r.Close()
	}
	if o.mesh().Contains(d) == private {
		o.t.Errorf("%s: there for the mesh %v, want %v", what, private, !private)
	}
}

func TestRule(t *testing.T) {
	if _, err := share.ParseRule(nil, []string{"["}); err == nil {
		t.Error("a malformed pattern is taken")
	}
	for _, c := range []struct {
		instances, noShare []string
		empty, other       bool // are private
	}{
		{nil, nil, false, false}, {[]string{`""`}, nil, false, true}, {[]string{"other"}, nil, true, false}, {[]string{`""`, "other"}, nil, false, false},
		{nil, []string{`instance:""`}, true, false}, {nil, []string{"instance:"}, true, false}, {[]string{`""`}, []string{`instance:""`}, true, true},
	} {
		rule, err := share.ParseRule(c.instances, c.noShare)
		if err != nil {
			t.Fatal(err)
		}
		p, err := share.OpenPrivate(t.TempDir(), rule, casfake.New(cas.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		if p.Instance("") != c.empty || p.Instance("other") != c.other {
			t.Errorf("%q, %q: the empty instance is private %v, another %v", c.instances, c.noShare, p.Instance(""), p.Instance("other"))
		}
		p.Close()
	}
	o := newOwned(t)
	for name, private := range map[string]bool{"open": false, "": true, "other": true, "held": true} {
		if o.private.Instance(name) != private {
			t.Errorf("instance %q: private %v", name, !private)
		}
	}
	for path, private := range map[string]bool{
		"x.key": true, "a/b/x.key": true, "x.key/a": true, "/x.key/": true, "x.key.pub": false, "vault/a": true, "a/vault/b": false, "vault/a/b": false, "": false,
	} {
		if o.private.Path(path) != private {
			t.Errorf("path %q: private %v", path, !private)
		}
	}
	var none share.Private
	if none.Active() || none.Instance("x") || none.Path("x.key") || none.Has(blobOf("x").Digest) || none.Hide([]digest.Digest{blobOf("x").Digest}, share.ByName) == nil {
		t.Error("the zero value does not share everything, or takes what it cannot hide")
	}
}

// What comes by an instance that is not shared is private, in every way in, until it comes by one that is.
func TestEntrances(t *testing.T) {
	o := newOwned(t)
	known := o.put(o.named(), "known before")
	for name, d := range map[string]digest.Digest{
		"batch": o.put(o.behind(), "batch"), "file": o.file(o.behind(), "file"), "stream": o.stream(o.behind(), "stream"),
	} {
		o.want(name, d, true)
	}
	o.put(o.behind(), "known before")
	o.want("what was shared before", known, false)
	for name, enter := range map[string]func(d digest.Digest){
		"batch": func(digest.Digest) { o.put(o.named(), "batch") },
		"file": func(d digest.Digest) { // a client asks, and does not upload what is here
			if missing, err := o.named().Missing(t.Context(), []digest.Digest{d}); err != nil || len(missing) > 0 {
				t.Errorf("missing %v, %v", missing, err)
			}
		},
		"stream": func(digest.Digest) { o.stream(o.named(), "stream") },
	} {
		d := blobOf(name).Digest
		enter(d)
		o.want(name+" by a shared instance", d, false)
	}
}

// What the mesh asks for stays private; what it brings does not, whatever the reason was.
func TestMeshBrings(t *testing.T) {
	o := newOwned(t)
	for i, why := range []share.Reason{share.ByInstance, share.ByName} {
		text := []string{"by instance", "by name"}[i]
		behind := share.Hiding{Whole: o.store, Private: o.private, Why: why}
		d := o.put(behind, text)
		wrong := blobOf(text)
		wrong.Data = []byte("its digest and other bytes")
		if errs := o.mesh().PutBatch(t.Context(), []cas.Blob{wrong}); errs == nil {
			t.Error("other bytes are taken")
		}
		w, err := o.mesh().NewWriter(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		w.Abort()
		o.want(text+", asked for", d, true)
		if err := o.mesh().Put(t.Context(), d, []byte(text)); err != nil {
			t.Fatal(err)
		}
		o.want(text+", brought", d, false)
		o.put(behind, text)
		o.want(text+", known to all", d, false)
		streamed := o.put(behind, text+" in a stream")
		o.stream(o.mesh(), text+" in a stream")
		o.want(text+", brought in a stream", streamed, false)
	}
	named := o.put(share.Hiding{Whole: o.store, Private: o.private, Why: share.ByName}, "the owner's key")
	o.put(o.named(), "the owner's key")
	o.want("what is private by name, uploaded as an input", named, true)
	o.file(o.mesh(), "the owner's key")
	o.want("what a shared action made too", named, false)
}

// Marks are there after kill -9 at any moment, of blobs that are still there; so are those of an owner who shares everything
// from now on.
func TestMarksSurvive(t *testing.T) {
	o := newOwned(t)
	kept, evicted := o.put(o.behind(), "kept"), o.put(o.behind(), "evicted")
	named := o.put(share.Hiding{Whole: o.store, Private: o.private, Why: share.ByName}, "by name")
	again := o.put(o.behind(), "shared again")
	o.put(o.named(), "shared again")
	copied := filepath.Join(t.TempDir(), "private")
	if err := os.CopyFS(copied, os.DirFS(o.dir)); err != nil { // as the kernel has it
		t.Fatal(err)
	}
	o.store.Lose(evicted)
	o.store.Lose(named)
	o.rule = share.Rule{}
	o.open(copied)
	o.store.PutBatch(t.Context(), []cas.Blob{blobOf("evicted"), blobOf("by name")})
	o.want("kept", kept, true)
	o.want("evicted", evicted, false)
	o.want("by name", named, true)
	o.want("shared again", again, false)
	if p, err := share.OpenPrivate(filepath.Join(t.TempDir(), "none"), share.Rule{}, o.store); err != nil || p.Active() {
		t.Errorf("an owner who shares everything has marks: %v", err)
	}
}

// Where marks are lost, however they are, all blobs that are there become private: by name where names count, and by instance
// where they do not. A second start finds everything mended.
func TestMarksLost(t *testing.T) {
	cut := func(t *testing.T, path string, keep int64) {
		if err := os.Truncate(path, keep); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(t *testing.T, path string, at int64) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[at] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, damage := range map[string]func(t *testing.T, dir, segment string){
		"a bad head":      func(t *testing.T, dir, _ string) { flip(t, filepath.Join(dir, "journal"), 10) },
		"a bad line":      func(t *testing.T, dir, _ string) { flip(t, filepath.Join(dir, "journal"), 130) },
		"an empty file":   func(t *testing.T, dir, _ string) { cut(t, filepath.Join(dir, "journal"), 0) },
		"a missing value": func(t *testing.T, _, segment string) { cut(t, segment, 0) },
		"a bad value":     func(t *testing.T, _, segment string) { flip(t, segment, 20) },
	} {
		for _, rule := range []struct {
			noShare []string
			again   bool // private after a shared client named it
		}{{[]string{"*.key"}, true}, {[]string{"instance:held"}, false}} {
			t.Run(name+strings.Join(rule.noShare, ""), func(t *testing.T) {
				o := newOwned(t)
				o.private.Close()
				var err error
				if o.rule, err = share.ParseRule(nil, rule.noShare); err != nil {
					t.Fatal(err)
				}
				o.open(o.dir)
				secret, shared := o.put(o.behind(), "secret"), o.put(o.named(), "shared")
				o.want("what is shared, before", shared, false)
				if err := o.private.Close(); err != nil {
					t.Fatal(err)
				}
				segments, _ := filepath.Glob(filepath.Join(o.dir, "*0*"))
				damage(t, o.dir, segments[0])
				for _, damaged := range []bool{true, false} {
					o.open(o.dir)
					if o.private.Damaged() != damaged {
						t.Errorf("damaged: %v, want %v", o.private.Damaged(), damaged)
					}
					o.want("what is private", secret, true)
					o.want("what was shared", shared, true)
					o.private.Close()
				}
				o.open(o.dir)
				o.put(o.named(), "shared")
				o.want("what was shared, named again", shared, rule.again)
			})
		}
	}
}

// A mark that cannot be kept makes everything private, and what should have been hidden does not come in.
func TestMarksFail(t *testing.T) {
	o := newOwned(t)
	before := o.put(o.named(), "before")
	if err := o.private.Close(); err != nil {
		t.Fatal(err)
	}
	if errs := o.behind().PutBatch(t.Context(), []cas.Blob{blobOf("secret")}); errs == nil || o.store.Contains(blobOf("secret").Digest) {
		t.Errorf("a blob came in that cannot be hidden: %v", errs)
	}
	if w, err := o.behind().NewWriter(t.Context(), blobOf("secret").Digest); err == nil {
		w.Abort()
		t.Error("a stream came in that cannot be hidden")
	}
	o.want("everything", before, true)
}

// An action is private by its instance, and by name of an output, an input, or an input that such an action made.
func TestJudge(t *testing.T) {
	o := newOwned(t)
	made := o.put(share.Hiding{Whole: o.store, Private: o.private, Why: share.ByName}, "made beside a key")
	held := o.put(o.behind(), "held")
	key := o.put(o.named(), "a key")
	tree := func(name string, d digest.Digest) digest.Digest {
		sub := o.directory(o.named(), &repb.Directory{Files: []*repb.FileNode{{Name: name, Digest: d.Proto()}}})
		return o.directory(o.named(), &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "sub", Digest: sub.Proto()}}})
	}
	plain := tree("a", blobOf("").Digest)
	judge := func(what string, instance string, root digest.Digest, want share.Reason, outputs ...string) {
		t.Helper()
		for range 2 { // the second answer is remembered
			if why, err := o.private.Judge(t.Context(), o.store, share.Action{Instance: instance, InputRoot: root, Outputs: outputs}); why != want || err != nil {
				t.Errorf("%s: %v, want %v, %v", what, why, want, err)
			}
		}
	}
	judge("a shared one", "open", plain, share.Shared, "out")
	judge("another instance", "", plain, share.ByInstance, "out")
	judge("an output", "open", plain, share.ByName, "out", "a/b.key")
	judge("an output of another instance", "", plain, share.ByName, "b.key")
	judge("an input a private one made", "open", tree("a", made), share.ByName)
	o.want("an input with a name that is not looked at yet", key, false)
	judge("an input", "open", tree("x.key", key), share.ByName)
	o.want("an input with such a name", key, true)
	judge("that input by another name", "open", tree("data", key), share.ByName)
	judge("what is held, by its own instance", "", tree("held", held), share.ByInstance)
	o.want("what is held", held, true)
	judge("what is held, by an action with a private output", "open", tree("held", held), share.ByName, "x.key")
	o.want("what is held", held, true)
	judge("what is held, by a shared instance", "open", tree("held", held), share.Shared)
	o.want("what a shared action names", held, false)
	if why, err := o.private.Judge(t.Context(), o.store, share.Action{Instance: "open", InputRoot: blobOf("no tree").Digest}); why == share.Shared || err == nil {
		t.Errorf("an action whose inputs cannot be read: %v, %v", why, err)
	}
}

// A result is private when a file has such a name, in whatever form its directory is told.
func TestPrivateResult(t *testing.T) {
	o := newOwned(t)
	dir := func(name string) (tree, root digest.Digest) {
		m := &repb.Directory{Files: []*repb.FileNode{{Name: name, Digest: blobOf("").Digest.Proto()}}}
		data, err := proto.Marshal(&repb.Tree{Root: m})
		if err != nil {
			t.Fatal(err)
		}
		return o.put(o.named(), string(data)), o.directory(o.named(), m)
	}
	keyTree, keyRoot := dir("x.key")
	otherTree, otherRoot := dir("x")
	outputs := func(tree, root *repb.Digest) *repb.ActionResult {
		return &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{Path: "out", TreeDigest: tree, RootDirectoryDigest: root}}}
	}
	for name, c := range map[string]struct {
		result  *repb.ActionResult
		private bool
	}{
		"a file":         {&repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "a/x.key"}}}, true},
		"another":        {&repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "a/x"}}}, false},
		"a tree":         {outputs(keyTree.Proto(), nil), true},
		"a root":         {outputs(nil, keyRoot.Proto()), true},
		"both":           {outputs(keyTree.Proto(), keyRoot.Proto()), true},
		"another tree":   {outputs(otherTree.Proto(), nil), false},
		"another root":   {outputs(nil, otherRoot.Proto()), false},
		"the empty tree": {outputs(blobOf("").Digest.Proto(), nil), false},
	} {
		if private, err := o.private.Result(t.Context(), o.store, digest.SHA256, c.result); private != c.private || err != nil {
			t.Errorf("%s: private %v, %v", name, private, err)
		}
	}
	if _, err := o.private.Result(t.Context(), o.store, digest.SHA256, outputs(blobOf("absent").Digest.Proto(), nil)); err == nil {
		t.Error("a result that cannot be read is shared")
	}
}

// An answer about several blobs does not tell which are private: nothing but their being missing, in the order they were asked
// for.
func TestPrivateAmongOthers(t *testing.T) {
	o := newOwned(t)
	absent := func(i int) digest.Digest { return blobOf(fmt.Sprint("absent", i)).Digest }
	shared, secret, key := o.put(o.named(), "shared"), o.put(o.behind(), "secret"), o.put(share.Hiding{Whole: o.store, Private: o.private, Why: share.ByName}, "key")
	ds := []digest.Digest{absent(1), secret, shared, absent(2), key, absent(3), shared}
	missing, err := o.mesh().Missing(t.Context(), ds)
	if want := []digest.Digest{absent(1), secret, absent(2), key, absent(3)}; err != nil || !slices.Equal(missing, want) {
		t.Errorf("missing %v, %v", missing, err)
	}
	data, err := o.mesh().GetBatch(t.Context(), ds)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range data {
		if want := ds[i] == shared; (b != nil) != want || want && string(b) != "shared" {
			t.Errorf("blob %d: %q", i, b)
		}
	}
}

// A blob that is hidden while an action that has it as an input is judged is hidden for whoever judges next: what was found
// out in between is not remembered.
func TestHiddenWhileJudged(t *testing.T) {
	o := newOwned(t)
	input := o.put(o.named(), "input")
	root := o.directory(o.named(), &repb.Directory{Files: []*repb.FileNode{{Name: "a", Digest: input.Proto()}}})
	judge := func() share.Reason {
		why, err := o.private.Judge(t.Context(), o.store, share.Action{Instance: "open", InputRoot: root})
		if err != nil {
			t.Error(err)
		}
		return why
	}
	judge()
	var many []digest.Digest // before it, so that marking takes longer than judging
	for i := range 30_000 {
		many = append(many, blobOf(fmt.Sprint(i)).Digest)
	}
	hidden := make(chan error, 1)
	go func() { hidden <- o.private.Hide(append(many, input), share.ByName) }()
	for marking := true; marking; {
		judge()
		select {
		case err := <-hidden:
			if err != nil {
				t.Fatal(err)
			}
			marking = false
		default:
		}
	}
	if why := judge(); why != share.ByName {
		t.Errorf("%v, want %v", why, share.ByName)
	}
}
