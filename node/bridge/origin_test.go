package bridge

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// artifact pushes an artifact as BuildStream does, and gives its files.
func (l *lab) artifact(n Name, edit func([]byte) []byte) digest.Digest {
	l.t.Helper()
	bin := l.message(&repb.Directory{Files: []*repb.FileNode{{Name: "hello", Digest: l.put(digest.SHA256, "hi").Proto(), IsExecutable: true}}})
	files := l.message(&repb.Directory{Directories: []*repb.DirectoryNode{{Name: "bin", Digest: bin.Proto()}}})
	data := NewArtifact(n.Key, files, l.put(digest.SHA256, "{}\n"))
	if edit != nil {
		data = edit(data)
	}
	a := index.Asset{Kind: index.Blob, URIs: []string{n.URN()}, Digest: l.put(digest.SHA256, string(data)), Directories: []digest.Digest{files}}
	if err := l.assets.Push(l.t.Context(), a); err != nil {
		l.t.Fatal(err)
	}
	return files
}

func tarNames(t testing.TB, data []byte) string {
	t.Helper()
	var names []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(names, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestArtifactBecomesTar(t *testing.T) {
	l := newLab(t)
	files := l.artifact(Name{"p", "sub-e", "abc"}, nil)
	var first digest.Digest
	for _, uri := range []string{"https://mesh.invalid/bst/p/sub-e/abc.tar", "https://mesh.invalid/bst/p/sub/e.bst/abc.tar",
		fmt.Sprintf("https://mesh.invalid/tree/%s-%d.tar", files.Hex(), files.Size())} {
		d, err := l.Blob(t.Context(), digest.SHA256, uri)
		if err != nil {
			t.Fatal(err)
		}
		data, err := l.blobs.Get(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if got := tarNames(t, data); got != "bin/ bin/hello" {
			t.Errorf("%s holds %q", uri, got)
		}
		if first.IsZero() {
			first = d
		} else if d != first {
			t.Errorf("%s: another tar of the same tree", uri)
		}
	}
	if d, err := l.Blob(t.Context(), digest.BLAKE3, "https://mesh.invalid/bst/p/sub-e/abc.tar"); err != nil || d.Function() != digest.BLAKE3 {
		t.Errorf("for BLAKE3: %v, %v", d, err)
	}
	// The tar is kept although nobody leases it, and made again when it is lost all the same.
	l.blobs.Lose(first)
	if again, err := l.Blob(t.Context(), digest.SHA256, "https://mesh.invalid/bst/p/sub-e/abc.tar"); err != nil || again != first || !l.blobs.Contains(first) {
		t.Errorf("made again: %v, %v", again, err)
	}
	l.blobs.Lose(digest.SHA256.Of([]byte("hi")))
	if _, err := l.Blob(t.Context(), digest.SHA256, "https://mesh.invalid/bst/p/sub-e/abc.tar"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "p/sub-e/abc") {
		t.Errorf("an artifact whose blobs are gone: %v", err)
	}
}

func TestArtifactsWithoutFiles(t *testing.T) {
	l := newLab(t)
	l.artifact(Name{"p", "failed", "k"}, func(b []byte) []byte { return append(b, fieldSucceeded<<3, 0) })
	l.artifact(Name{"p", "empty", "k"}, func([]byte) []byte { return []byte{fieldVersion << 3, 1, fieldSucceeded << 3, 1} })
	l.artifact(Name{"p", "broken", "k"}, func([]byte) []byte { return []byte("hello") })
	for name, want := range map[string]string{"failed": "failed build", "empty": "no files", "broken": "not an artifact", "none": "build it again"} {
		_, err := l.Blob(t.Context(), digest.SHA256, "https://mesh.invalid/bst/p/"+name+"/k.tar")
		if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestBadURIs(t *testing.T) {
	l := newLab(t)
	hash := strings.Repeat("a", 64)
	for _, uri := range []string{"https://mesh.invalid/", "https://mesh.invalid", "https://mesh.invalid/bst/p/e/k", "https://mesh.invalid/bst/p/k.tar",
		"https://mesh.invalid/bst/p//k.tar", "https://mesh.invalid/bst//e/k.tar", "https://mesh.invalid/bst/p/e/.tar", "https://mesh.invalid/tree/" + hash + ".tar",
		"https://mesh.invalid/tree/" + hash + "-01.tar", "https://mesh.invalid/tree/" + hash[:63] + "-1.tar", "https://mesh.invalid/tree/" + hash + "--1.tar",
		"mesh:tar://x", "mesh:bazel:////a:b", "mesh:"} {
		var bad *reapi.FieldError
		if _, err := l.Blob(t.Context(), digest.SHA256, uri); !l.Owns(uri) || !errors.As(err, &bad) {
			t.Errorf("blob %s: %v", uri, err)
		}
	}
	for _, uri := range []string{"mesh:", "mesh:tar://x", "mesh:bazel://", "mesh:bazel:////", "mesh:bazel:////a:", "mesh:bazel:////a:b?path=..", "mesh:bazel:////a:b?path=/x",
		"mesh:bazel:////a:b?path=", "mesh:bazel:////a:b?colour=red", "mesh:bazel:////a:b?path=a&path=b", "https://mesh.invalid/bst/p/e/k.tar"} {
		var bad *reapi.FieldError
		if _, err := l.Directory(t.Context(), digest.SHA256, uri); !l.Owns(uri) || !errors.As(err, &bad) {
			t.Errorf("directory %s: %v", uri, err)
		}
	}
	for _, uri := range []string{"https://mesh.invalid.example/bst/p/e/k.tar", "http://mesh.invalid/x", "urn:mesh:x", "meshy:x"} {
		if l.Owns(uri) {
			t.Errorf("%s is taken for our own", uri)
		}
	}
}

func TestLabel(t *testing.T) {
	for in, want := range map[string]string{
		"//a/b:c": "//a/b:c", "a/b:c": "//a/b:c", "////a/b:c": "//a/b:c", "//a/b": "//a/b:b", "a": "//a:a", "@@//a:b": "//a:b", "@//a:b": "//a:b",
		"@r//a:b": "@r//a:b", "@@r~1.0//a:b": "@r~1.0//a:b", "//:x": "//:x", "@r//:x": "@r//:x", "//a:b/c.h": "//a:b/c.h",
		"": "", "//": "", "@": "", "//a:": "", "//a\n:b": "",
	} {
		if got, err := Label(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q gives %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestTargetBecomesDirectory(t *testing.T) {
	l := newLab(t)
	const bin = "bazel-out/k8-fastbuild/bin/app/"
	l.built("//app:grep", "CppCompile", "compile", l.outputFile(bin+"_objs/grep.o", "object"))
	old := l.outputFile(bin+"grep", "old program")
	l.built("//app:grep", "CppLink", "link 1", old)
	leaf := &repb.Directory{Symlinks: []*repb.SymlinkNode{{Name: "link", Target: "../grep"}}}
	message := &repb.Tree{Root: &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "deep", Digest: l.message(leaf).Proto()}}}, Children: []*repb.Directory{leaf}}
	treeDigest := l.message(message)
	l.blobs.Lose(l.message(leaf)) // clients upload the Tree message alone
	l.built("//app:grep", "Docs", "docs", &repb.ActionResult{
		OutputDirectories: []*repb.OutputDirectory{{Path: bin + "docs", TreeDigest: treeDigest.Proto()}},
		OutputSymlinks:    []*repb.OutputSymlink{{Path: bin + "alias", Target: "grep"}},
	})
	l.built("//app:other", "CppLink", "other", l.outputFile(bin+"other", "other"))
	l.built("@@//app:grep", "CppLink", "link 2", l.outputFile(bin+"grep", "new program"))

	check := func(uri string, want map[string]string) digest.Digest {
		t.Helper()
		d, err := l.Directory(t.Context(), digest.SHA256, uri)
		if err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
		if got := l.paths(d); !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", uri, got, want)
		}
		return d
	}
	whole := map[string]string{bin + "_objs/grep.o": "object", bin + "grep": "new program", bin + "docs/deep/link": "-> ../grep", bin + "alias": "-> grep"}
	root := check("mesh:bazel:////app:grep", whole)
	if again := check("mesh:bazel://app:grep", whole); again != root {
		t.Error("the same target in another form gives another directory")
	}
	check("mesh:bazel:////app:grep?mnemonic=CppLink", map[string]string{bin + "grep": "new program"})
	check("mesh:bazel:////app:grep?mnemonic=CppLink&path=bazel-out/k8-fastbuild/bin", map[string]string{"app/grep": "new program"})
	check("mesh:bazel:////app:grep?path="+bin+"docs", map[string]string{"deep/link": "-> ../grep"})
	check("mesh:bazel:////app:grep?path="+bin+"grep", map[string]string{"grep": "new program"})
	check("mesh:bazel:////app:grep?path="+bin+"alias", map[string]string{"alias": "-> grep"})

	// An earlier build comes back from the cache: its outputs are the target's again.
	l.built("//app:grep", "CppLink", "link 1", old)
	whole[bin+"grep"] = "old program"
	check("mesh:bazel:////app:grep", whole)
	l.open() // a new process
	check("mesh:bazel:////app:grep", whole)

	for uri, want := range map[string]string{
		"mesh:bazel:////app:none":                        "build it with Bazel",
		"mesh:bazel:////app:grep?mnemonic=Javac":         "no action",
		"mesh:bazel:////app:grep?path=no/such":           "no \"no/such\"",
		"mesh:bazel:////app:grep?path=" + bin + "docs/x": "among the outputs",
	} {
		if _, err := l.Directory(t.Context(), digest.SHA256, uri); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", uri, err, want)
		}
	}
	if _, err := l.Directory(t.Context(), digest.BLAKE3, "mesh:bazel:////app:grep"); !errors.Is(err, ErrNotFound) {
		t.Errorf("under another digest function: %v", err)
	}
}

func TestResultsThatAreGone(t *testing.T) {
	l := newLab(t)
	l.built("//a:a", "One", "1", l.outputFile("out/one", "1"))
	two := l.built("//a:a", "Two", "2", l.outputFile("out/two", "2"))
	l.results.mu.Lock()
	delete(l.results.known, two)
	l.results.mu.Unlock()
	var gone *GoneError
	_, err := l.Directory(t.Context(), digest.SHA256, "mesh:bazel://a:a")
	if !errors.Is(err, ErrNotFound) || !errors.As(err, &gone) || fmt.Sprint(gone.Outputs) != "[out/two]" {
		t.Fatalf("got %v", err)
	}
	// It was told once; from now on it is no part of the target, until it is built again.
	d, err := l.Directory(t.Context(), digest.SHA256, "mesh:bazel://a:a")
	if err != nil || len(l.paths(d)) != 1 {
		t.Fatalf("got %v, %v", d, err)
	}
	l.built("//a:a", "Two", "2", l.outputFile("out/two", "2"))
	if d, err = l.Directory(t.Context(), digest.SHA256, "mesh:bazel://a:a"); err != nil || len(l.paths(d)) != 2 {
		t.Errorf("got %v, %v", d, err)
	}
	l.blobs.Lose(digest.SHA256.Of([]byte("1")))
	if _, err := l.Directory(t.Context(), digest.SHA256, "mesh:bazel://a:a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("with a file that is gone: %v", err)
	}
}

func TestServeTree(t *testing.T) {
	l := newLab(t)
	files := l.artifact(Name{"p", "e", "k"}, nil)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+TreePath, l.ServeTree)
	ask := func(method, name string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(method, "/tree/"+name, nil))
		return w
	}
	name := fmt.Sprintf("%s-%d.tar", files.Hex(), files.Size())
	got := ask(http.MethodGet, name)
	if got.Code != http.StatusOK || tarNames(t, got.Body.Bytes()) != "bin/ bin/hello" || got.Header().Get("Content-Type") != "application/x-tar" {
		t.Errorf("%d %v %q", got.Code, got.Header(), got.Body)
	}
	d, err := l.Tar(t.Context(), digest.SHA256, files)
	if err != nil || digest.SHA256.Of(got.Body.Bytes()) != d {
		t.Errorf("it is not the tar that FetchBlob gives: %v", err)
	}
	if head := ask(http.MethodHead, name); head.Code != http.StatusOK || head.Body.Len() != 0 {
		t.Errorf("HEAD: %d, %d bytes", head.Code, head.Body.Len())
	}
	for name, want := range map[string]int{
		strings.Repeat("b", 64) + "-7.tar": 404, "x-7.tar": 400, files.Hex() + ".tar": 400, files.Hex(): 404, "": 404,
	} {
		if got := ask(http.MethodGet, name); got.Code != want {
			t.Errorf("%s: %d, want %d", name, got.Code, want)
		}
	}
	file := l.put(digest.SHA256, "no directory")
	if got := ask(http.MethodGet, fmt.Sprintf("%s-%d.tar", file.Hex(), file.Size())); got.Code == 200 {
		t.Error("a file was served as a tree")
	}
	l.blobs.Lose(digest.SHA256.Of([]byte("hi")))
	if got := ask(http.MethodGet, name); got.Code != http.StatusNotFound || !strings.Contains(got.Body.String(), "missing") {
		t.Errorf("an incomplete tree: %d %q", got.Code, got.Body)
	}
}

func FuzzDecodeArtifact(f *testing.F) {
	f.Add(NewArtifact("k", digest.SHA256.Empty(), digest.SHA256.Empty()))
	f.Add([]byte{fieldVersion << 3, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := DecodeArtifact(data)
		if err != nil && !errors.Is(err, errArtifact) {
			t.Errorf("%v is of an unknown kind", err)
		}
		if err == nil && !a.Files.IsZero() && a.Files.Function() != digest.SHA256 {
			t.Error("files of another digest function")
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("mesh:bazel://@r//a:b?path=x&mnemonic=y")
	f.Add("p/e.bst/k")
	f.Fuzz(func(t *testing.T, s string) {
		if target, err := ParseTarget(s); err == nil {
			if again, err := ParseTarget(target.URI()); err != nil || again != target {
				t.Errorf("%q gives %+v, and that %+v, %v", s, target, again, err)
			}
		}
		if n, err := ParseName(s); err == nil {
			if again, err := ParseName(n.String()); err != nil || again != n {
				t.Errorf("%q gives %+v, and that %+v, %v", s, n, again, err)
			}
		}
	})
}

// TestDeepOutput: of an output below more directories than a tree may have none is made.
func TestDeepOutput(t *testing.T) {
	l := newLab(t)
	l.built("//app:deep", "Genrule", "deep", l.outputFile(strings.Repeat("a/", tree.DefaultLimits().MaxDepth)+"out", "x"))
	l.built("//app:just", "Genrule", "just", l.outputFile(strings.Repeat("a/", tree.DefaultLimits().MaxDepth-1)+"out", "x"))
	for label, want := range map[string]string{"//app:deep": "outputs of //app:deep: output \"" + strings.Repeat("a/", 100) + "\" is below more than 255 directories", "//app:just": "<nil>"} {
		_, err := l.Target(t.Context(), digest.SHA256, Target{Label: label})
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s: %s, want %s", label, got, want)
		}
	}
}
