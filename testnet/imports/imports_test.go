package imports

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/buildmesh/buildmesh"
	root   = "../.."

	maxDocLines  = 60
	maxFileLines = 600
	maxFuncLines = 80
	maxMethods   = 5
)

// rooms maps each room to the rooms it may import besides itself.
var rooms = map[string][]string{
	"cmd":     {"node", "proto"},
	"node":    {"exec", "dht", "mesh", "proto"},
	"exec":    {"dht", "mesh", "proto"},
	"dht":     {"mesh", "proto"},
	"mesh":    {"proto"},
	"proto":   {},
	"testnet": {"cmd", "node", "exec", "dht", "mesh", "proto"},
}

// leaves are the only packages of foreign rooms that exec and dht may import.
var leaves = map[string][]string{
	"exec": {"dht/digest", "dht/tree", "mesh/peer"},
	"dht":  {"mesh/peer"},
}

// pkg is what `go list -json` tells of one package.
type pkg struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// list runs go list for one system over every package of the module.
func list(t *testing.T, goos string) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var own []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if inside(p.ImportPath) != "" {
			own = append(own, p)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v", err)
	}
	if len(own) < 5 {
		t.Fatalf("go list found only %d packages of %s", len(own), module)
	}
	return own
}

// inside is the path of an import below the module, or "" for foreign ones.
func inside(importPath string) string {
	rest, found := strings.CutPrefix(importPath, module+"/")
	if !found {
		return ""
	}
	return rest
}

// room is the top-level folder of a path below the module.
func room(path string) string {
	r, _, _ := strings.Cut(path, "/")
	return r
}

// breach says why the package at from may not import the package at to, or "" when it may.
func breach(from, to string) string {
	a, b := room(from), room(to)
	switch {
	case a == b:
		return ""
	case b == "testnet":
		return "testnet is never imported by production code"
	case !slices.Contains(rooms[a], b):
		return a + " may not import " + b
	case leaves[a] != nil && b != "proto" && !slices.Contains(leaves[a], to):
		return a + " may import only values from " + b
	}
	return ""
}

func TestDirection(t *testing.T) {
	for _, goos := range []string{"linux", "darwin"} {
		for _, p := range list(t, goos) {
			from := inside(p.ImportPath)
			for _, imported := range p.Imports {
				if to := inside(imported); to != "" {
					if why := breach(from, to); why != "" {
						t.Errorf("%s imports %s: %s", from, to, why)
					}
				}
			}
			for _, dep := range p.Deps {
				if room(inside(dep)) == "testnet" && room(from) != "testnet" {
					t.Errorf("%s depends on %s: testnet is never part of production code", from, inside(dep))
				}
			}
			for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
				if to := inside(imported); to != "" && room(to) != "testnet" && breach(from, to) != "" && room(from) == "dht" {
					t.Errorf("tests of %s import %s: %s", from, to, breach(from, to))
				}
			}
		}
	}
}

// TestBreach shows that the rules can fail.
func TestBreach(t *testing.T) {
	for _, test := range []struct {
		from, to string
		allowed  bool
	}{
		{"cmd/buildmesh", "node/config", true},
		{"cmd/buildmesh", "dht/cas", false},
		{"node", "exec/run", true},
		{"node/reapi", "testnet/clock", false},
		{"exec/run", "dht/digest", true},
		{"exec/run", "dht/tree", true},
		{"exec/run", "mesh/peer", true},
		{"exec/run", "dht/cas", false},
		{"exec/run", "mesh/roster", false},
		{"exec/run", "exec/stage", true},
		{"exec/run", "node", false},
		{"dht/cas", "mesh/peer", true},
		{"dht/cas", "exec/run", false},
		{"dht/cas", "node/config", false},
		{"mesh/peer", "dht/digest", false},
		{"proto/control/v1", "node/control", false},
		{"testnet/bench", "node", true},
	} {
		if why := breach(test.from, test.to); (why == "") != test.allowed {
			t.Errorf("%s -> %s: %q, want allowed %v", test.from, test.to, why, test.allowed)
		}
	}
}

func TestRooms(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	generated := []string{"bin", "out"} // ignored by git
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") || slices.Contains(generated, e.Name()) {
			continue
		}
		if _, found := rooms[e.Name()]; !found {
			t.Errorf("%s is no room", e.Name())
		}
	}
	for r := range rooms {
		if info, err := os.Stat(filepath.Join(root, r)); err != nil || !info.IsDir() {
			t.Errorf("room %s is missing", r)
		}
	}
}

func TestPackages(t *testing.T) {
	for _, p := range list(t, "linux") {
		name := inside(p.ImportPath)
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc"}, path.Base(name)) {
			t.Errorf("%s: a drawer, not a package", name)
		}
		if generatedOnly(t, p.Dir) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(p.Dir, "doc.go"))
		if err != nil {
			t.Errorf("%s has no doc.go", name)
			continue
		}
		if n := strings.Count(string(data), "\n"); n > maxDocLines {
			t.Errorf("%s: doc.go has %d lines, at most %d", name, n, maxDocLines)
		}
		file, err := parser.ParseFile(token.NewFileSet(), "doc.go", data, parser.ParseComments)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := file.Doc.Text(); !strings.Contains(strings.ToLower(strings.Join(strings.Fields(text), " ")), "start reading at") {
			t.Errorf("%s: doc.go does not say where to start reading", name)
		}
	}
}

// sources calls f for every Go file of the module that no generator wrote.
func sources(t *testing.T, f func(name string, set *token.FileSet, file *ast.File, lines int)) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := e.Name()
		if e.IsDir() && name != root && (strings.HasPrefix(base, ".") || base == "bin" || base == "out" || base == "testdata") {
			return filepath.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(base, ".go") {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, data, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(file) {
			f(strings.TrimPrefix(name, root+"/"), set, file, strings.Count(string(data), "\n"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// generatedOnly reports whether every Go file in dir was written by a generator.
func generatedOnly(t *testing.T, dir string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil || !ast.IsGenerated(file) {
			return false
		}
	}
	return len(files) > 0
}

func TestSizes(t *testing.T) {
	sources(t, func(name string, set *token.FileSet, file *ast.File, lines int) {
		if lines > maxFileLines {
			t.Errorf("%s has %d lines, at most %d", name, lines, maxFileLines)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if i, ok := n.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods {
				t.Errorf("%s: an interface lists %d methods and interfaces, at most %d", set.Position(i.Pos()), i.Methods.NumFields(), maxMethods)
			}
			return true
		})
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1; n > maxFuncLines {
				t.Errorf("%s: function %s has %d lines, at most %d", name, f.Name.Name, n, maxFuncLines)
			}
		}
	})
}
