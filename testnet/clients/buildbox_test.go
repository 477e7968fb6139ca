//go:build unix

package clients

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// buildbox runs one of BuildBox's programs in dir and gives what it printed.
func buildbox(t *testing.T, p Place, dir string, env []string, command ...string) (stdout, stderr string, exit int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := p.Command(ctx, dir, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatalf("start %s: %v", command[0], err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is buildbox for what has to succeed.
func must(t *testing.T, p Place, dir string, env []string, command ...string) string {
	t.Helper()
	stdout, stderr, exit := buildbox(t, p, dir, env, command...)
	if exit != 0 {
		t.Fatalf("%q: exit %d\n%s%s", command, exit, stdout, stderr)
	}
	return stdout
}

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// listing is all there is below a directory: kinds, executable bits, contents, targets.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			fmt.Fprintf(&list, "%s/\n", rel)
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			fmt.Fprintf(&list, "%s -> %s\n", rel, target)
			return err
		default:
			data, err := os.ReadFile(path)
			fmt.Fprintf(&list, "%s x=%v %d %.40q\n", rel, info.Mode()&0o111 != 0, len(data), data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}

// BuildBox's other programs do their main job on the node: casupload and casdownload carry a tree there and back, trexe
// runs commands, recc compiles.
func TestBuildBox(t *testing.T) {
	stream := Find(t).BuildStream(t)
	place := stream.Place
	node := place.StartNode(t)
	url := "http://" + node.Address()
	t.Run("casupload and casdownload", func(t *testing.T) { testCarry(t, place, url) })
	t.Run("trexe", func(t *testing.T) { testTrexe(t, place, node, url) })
	t.Run("trexe in a root of its own", func(t *testing.T) { testTrexeRoot(t, stream, url) })
	t.Run("recc", func(t *testing.T) { testRecc(t, place, node, url) })
}

func testCarry(t *testing.T, p Place, url string) {
	from := filepath.Join(p.Dir, "carried")
	write(t, filepath.Join(from, "a"), "a\n", 0o644)
	write(t, filepath.Join(from, "sub/deep/script"), "#!/bin/sh\n", 0o755)
	write(t, filepath.Join(from, "sub/empty"), "", 0o644)
	write(t, filepath.Join(from, "large"), strings.Repeat("0123456789abcdef", 300_000), 0o644)
	for name, target := range map[string]string{"link": "sub/deep", "absolute": "/etc/passwd", "dangling": "nothing"} {
		if err := os.Symlink(target, filepath.Join(from, name)); err != nil {
			t.Fatal(err)
		}
	}
	must(t, p, from, nil, "casupload", "--remote="+url, "--directory-format=both", "--output-digest-file=../root.digest",
		"--output-tree-digest-file=../tree.digest", ".")
	for _, kind := range []string{"root", "tree"} {
		id, err := os.ReadFile(filepath.Join(p.Dir, kind+".digest"))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(p.Dir, "fetched-"+kind)
		must(t, p, p.Dir, nil, "casdownload", "--remote="+url, "--destination-dir="+p.Inside(to), "--"+kind+"-digest="+strings.TrimSpace(string(id)))
		if got, want := listing(t, to), listing(t, from); got != want {
			t.Errorf("by its %s:\n%swant:\n%s", kind, got, want)
		}
	}
}

func testTrexe(t *testing.T, p Place, node *Node, url string) {
	dir := filepath.Join(p.Dir, "trexe")
	write(t, filepath.Join(dir, "in/words"), "c\na\nb\n", 0o644)
	command := []string{"trexe", "--remote=" + url, "--input-path=in:in", "--output-path=sorted", "--output-path=out", "--env=PATH=/usr/bin:/bin",
		"--d=got", "--", "/bin/sh", "-c", "sort in/words >sorted; mkdir out; echo deep >out/file; ln -s file out/link; echo said; echo warned >&2"}
	for attempt := range 2 {
		before := node.Metric("buildmesh_actions_total")
		stdout, stderr, exit := buildbox(t, p, dir, nil, command...)
		if exit != 0 || stdout != "said\n" || !strings.Contains(stderr, "warned") {
			t.Errorf("attempt %d: exit %d, stdout %q, stderr %q", attempt, exit, stdout, stderr)
		}
		if ran := node.Metric("buildmesh_actions_total") - before; int(ran) != 1-attempt {
			t.Errorf("attempt %d: %v actions ran", attempt, ran)
		}
		got := listing(t, filepath.Join(dir, "got"))
		for _, want := range []string{`sorted x=false 6 "a\nb\nc\n"`, `out/file x=false 5 "deep\n"`, "out/link -> file"} {
			if !strings.Contains(got, want) {
				t.Errorf("attempt %d: no %s in\n%s", attempt, want, got)
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, "got")); err != nil {
			t.Fatal(err)
		}
	}
	if _, stderr, exit := buildbox(t, p, dir, nil, "trexe", "--remote="+url, "--", "/bin/sh", "-c", "echo because >&2; exit 9"); exit != 9 ||
		!strings.Contains(stderr, "because") {
		t.Errorf("a failing command: exit %d, %q", exit, stderr)
	}
	cancelTrexe(t, p, node, dir, url)
}

// cancelTrexe starts an action, leaves it, and cancels it by its name.
func cancelTrexe(t *testing.T, p Place, node *Node, dir, url string) {
	t.Helper()
	name := strings.TrimSpace(must(t, p, dir, nil, "trexe", "--remote="+url, "--no-wait", "--", "/bin/sh", "-c", "sleep 86397.75"))
	Eventually(t, 30*time.Second, "the action runs", func() error {
		if n := len(processes(t, "sleep\x0086397.75\x00")); n != 1 {
			return fmt.Errorf("%d such processes; operation %q", n, name)
		}
		return nil
	})
	must(t, p, dir, nil, "trexe", "--remote="+url, "--operation="+name, "--cancel")
	Eventually(t, 30*time.Second, "the action is dead", func() error {
		if left := processes(t, "sleep\x0086397.75\x00"); len(left) > 0 {
			return fmt.Errorf("processes %v live; the node said %s", left, node.Log())
		}
		return nil
	})
}

// A tree that casupload brought is the root of a command that trexe sends.
func testTrexeRoot(t *testing.T, stream *BuildStream, url string) {
	p := stream.Place
	rootfs := filepath.Join(stream.project, "files", "rootfs")
	must(t, p, rootfs, nil, "casupload", "--remote="+url, "--instance=bst", "--output-digest-file=/w/rootfs.digest", ".")
	id, err := os.ReadFile(filepath.Join(p.Dir, "rootfs.digest"))
	if err != nil {
		t.Fatal(err)
	}
	stdout := must(t, p, p.Dir, nil, "trexe", "--remote="+url, "--instance=bst", "--input-root-digest="+strings.TrimSpace(string(id)),
		"--working-dir=var/work", "--output-path=made", "--d=root-got", "--env=PATH=/bin",
		"--platform-properties=OSFamily=linux,ISA="+isa, "--", "sh", "-c", "pwd; ls /; echo x >made; id -u")
	if want := "/var/work\nbin\ndev\netc\nproc\ntmp\nusr\nvar\n0\n"; stdout != want {
		t.Errorf("it said %q, want %q", stdout, want)
	}
	if got := listing(t, filepath.Join(p.Dir, "root-got")); !strings.Contains(got, `made x=false 2 "x\n"`) {
		t.Errorf("it left\n%s", got)
	}
}

func testRecc(t *testing.T, p Place, node *Node, url string) {
	dir := filepath.Join(p.Dir, "recc")
	write(t, filepath.Join(dir, "include/said.h"), "#define SAID \"compiled\"\n", 0o644)
	write(t, filepath.Join(dir, "main.cc"), "#include <cstdio>\n#include \"said.h\"\nint main() { std::puts(SAID); }\n", 0o644)
	write(t, filepath.Join(dir, "bad.cc"), "#error on purpose\n", 0o644)
	env := []string{"RECC_SERVER=" + url, "RECC_PROJECT_ROOT=" + p.Inside(dir), "RECC_REMOTE_ENV_PATH=/usr/bin:/bin"}
	for attempt := range 2 {
		before := node.Metric("buildmesh_actions_total")
		must(t, p, dir, env, "recc", "/usr/bin/g++", "-Iinclude", "-c", "main.cc", "-o", "main.o")
		if ran := node.Metric("buildmesh_actions_total") - before; int(ran) != 1-attempt {
			t.Errorf("attempt %d: %v actions ran", attempt, ran)
		}
		must(t, p, dir, nil, "g++", "main.o", "-o", "main")
		if out := must(t, p, dir, nil, "./main"); out != "compiled\n" {
			t.Errorf("attempt %d: the program says %q", attempt, out)
		}
		if err := os.Remove(filepath.Join(dir, "main.o")); err != nil {
			t.Error(err)
		}
	}
	if _, stderr, exit := buildbox(t, p, dir, env, "recc", "/usr/bin/g++", "-c", "bad.cc", "-o", "bad.o"); exit != 1 || !strings.Contains(stderr, "on purpose") {
		t.Errorf("a compile that fails: exit %d, %q", exit, stderr)
	}
}
