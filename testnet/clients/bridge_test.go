//go:build unix

package clients

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Bazel takes what BuildStream built as an archive, and BuildStream what Bazel made of it: by the plugin, and without
// one as a tar.
func TestBridge(t *testing.T) {
	kit := Find(t)
	stream := kit.BuildStream(t)
	node := stream.Place.StartNode(t)
	client := stream.NewClient(t, node.BuildStream(), Artifacts, Sources, Execution)
	built(t, "the element", client.Run(t, "build", "hello.bst"), nil)
	key := client.Show(t, "hello.bst", "%{full-key}")
	files := client.Show(t, "hello.bst", "%{artifact-cas-digest}")
	sum := sha256.Sum256(node.tree(t, files))
	archive := fmt.Sprintf("https://mesh.invalid/bst/greeting/hello/%s.tar", key)

	b7 := kit.Bazel7(t)
	shout(t, b7, archive, hex.EncodeToString(sum[:]))
	first := b7.NewOutputBase(t)
	flags := append(node.Remote(), "--experimental_remote_downloader="+node.Endpoint, "//:shout")
	succeed(t, "Bazel 7.7.1 with a checksum", first.Run(t, "build", flags...))
	if data, err := first.Output("k8-fastbuild/bin/loud.txt"); err != nil || string(data) != "HELLO MESH\n" {
		t.Fatalf("what Bazel made of it: %q, %v", data, err)
	}
	if testing.Short() {
		t.Log("without Bazel 4.2.3")
	} else {
		b4 := kit.Bazel4(t)
		shout(t, b4, archive, "")
		flags := append(node.Cache(), "--experimental_remote_downloader="+node.Endpoint, "//:shout")
		succeed(t, "Bazel 4.2.3 without a checksum", b4.NewOutputBase(t).Run(t, "build", flags...))
	}
	shout(t, b7, archive, strings.Repeat("0", 64))
	wrong := b7.NewOutputBase(t).Run(t, "build", flags...)
	if wrong.Exit == 0 || !strings.Contains(wrong.Output, "does not have the checksum asked for") {
		t.Errorf("a wrong checksum: exit %d\n%s", wrong.Exit, wrong.Tail())
	}
	consume(t, node, stream)
}

// tree downloads a tree, HASH/SIZE, from the web port.
func (n *Node) tree(t *testing.T, name string) []byte {
	t.Helper()
	reply, err := http.Get(n.Web + "/tree/" + strings.ReplaceAll(name, "/", "-") + ".tar")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	data, err := io.ReadAll(reply.Body)
	if err != nil || reply.StatusCode != http.StatusOK {
		t.Fatalf("tree %s: %s, %v: %s", name, reply.Status, err, data)
	}
	return data
}

// shout makes b's project one that turns an element's file into capitals.
func shout(t *testing.T, b *Bazel, url, sha256 string) {
	t.Helper()
	b.project = filepath.Join(b.Place.Dir, "shout")
	if err := os.MkdirAll(b.project, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"WORKSPACE": fmt.Sprintf(`workspace(name = "smoke")
load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_archive")
http_archive(name = "hello", urls = [%q], sha256 = %q,
  build_file_content = 'exports_files(["usr/share/hello.txt"])')
`, url, sha256),
		"BUILD": `genrule(name = "shout", srcs = ["@hello//:usr/share/hello.txt"], outs = ["loud.txt"], cmd = "tr a-z A-Z <$< >$@")
`,
	} {
		if err := os.WriteFile(filepath.Join(b.project, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// consume has BuildStream import //:shout in both ways.
func consume(t *testing.T, node *Node, stream *BuildStream) {
	t.Helper()
	conf, err := node.Run("bstplugin", "--install", stream.Place.Inside(stream.project))
	if err != nil {
		t.Fatalf("install the plugin: %v\n%s", err, conf)
	}
	appendTo(t, filepath.Join(stream.project, "project.conf"), conf)
	element := func(name, source string) {
		appendTo(t, filepath.Join(stream.project, "elements", name), "kind: import\nsources:\n"+source)
	}
	element("plugged.bst", fmt.Sprintf("- kind: mesh_cas\n  url: http://%s\n  uri: mesh:bazel:////:shout?path=bazel-out/k8-fastbuild/bin\n", node.BuildStream().Address))

	client := stream.NewClient(t, node.BuildStream(), Artifacts, Sources, Execution)
	loud := func(name string) {
		t.Helper()
		built(t, "track "+name, client.Run(t, "source", "track", name), nil)
		built(t, "build "+name, client.Run(t, "build", name), nil)
		if data, err := os.ReadFile(filepath.Join(client.Checkout(t, name), "loud.txt")); err != nil || string(data) != "HELLO MESH\n" {
			t.Errorf("%s holds %q, %v", name, data, err)
		}
	}
	loud("plugged.bst")
	tracked, err := os.ReadFile(filepath.Join(stream.project, "elements", "plugged.bst"))
	if err != nil {
		t.Fatal(err)
	}
	ref := regexp.MustCompile(`ref: ([0-9a-f]{64})/(\d+)`).FindSubmatch(tracked)
	if ref == nil {
		t.Fatalf("no ref was written:\n%s", tracked)
	}
	element("plain.bst", fmt.Sprintf("- kind: tar\n  url: %s/tree/%s.tar\n  base-dir: ''\n", node.Web, bytes.Join(ref[1:], []byte("-"))))
	loud("plain.bst")

	element("absent.bst", fmt.Sprintf("- kind: mesh_cas\n  url: http://%s\n  uri: mesh:bazel:////:nothing\n", node.BuildStream().Address))
	if s := client.Run(t, "source", "track", "absent.bst"); s.Exit == 0 || !strings.Contains(s.Output, "build it with Bazel") {
		t.Errorf("a target that nobody built: exit %d\n%s", s.Exit, s.Tail())
	}
}

// appendTo adds text to a file.
func appendTo(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteString(text)
	if closed := file.Close(); err != nil || closed != nil {
		t.Fatal(err, closed)
	}
}
