package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the table of keys into the README")

// write makes a configuration file of text and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// homed is an environment with a home directory and more.
func homed(more ...string) []string { return append([]string{"HOME=/home/ana"}, more...) }

func TestPrecedence(t *testing.T) {
	file := write(t, "[store]\nmax_size = \"1GiB\"\nmin_free = \"1GiB\"\nmax_blob=\"1GiB\"\n")
	c, err := Load(Source{
		File:     file,
		Environ:  homed("BUILDMESH_STORE_MAX_SIZE=2GiB", "BUILDMESH_STORE_MIN_FREE=2GiB"),
		Settings: []Setting{{"store.max_size", "3GiB", "--set"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		key    string
		value  Size
		got    Size
		origin string
	}{
		{"store.max_size", 3 << 30, c.Store.MaxSize, "flag --set"},
		{"store.min_free", 2 << 30, c.Store.MinFree, "env BUILDMESH_STORE_MIN_FREE"},
		{"store.max_blob", 1 << 30, c.Store.MaxBlob, "file " + file + ":4"},
	} {
		if want.got != want.value || c.Origin(want.key).String() != want.origin {
			t.Errorf("%s = %v from %q, want %v from %q", want.key, want.got, c.Origin(want.key), want.value, want.origin)
		}
	}
	if c.Store.Lease != 10*time.Minute || c.Origin("store.lease").String() != "default" {
		t.Errorf("store.lease = %v from %s, want the default", c.Store.Lease, c.Origin("store.lease"))
	}
}

func TestDefaultsNeedNoFile(t *testing.T) {
	c, err := Load(Source{Environ: homed("XDG_RUNTIME_DIR=/run/user/7", "XDG_STATE_HOME=relative/ignored")})
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		c.Dir.State:     "/home/ana/.local/state/buildmesh",
		c.Dir.Cache:     "/home/ana/.cache/buildmesh",
		c.Dir.Runtime:   "/run/user/7/buildmesh",
		c.Listen.Socket: "/run/user/7/buildmesh/buildmesh.sock",
		c.Listen.GRPC:   "127.0.0.1:8980",
		c.Listen.Web:    "127.0.0.1:8981",
	} {
		if got != filepath.FromSlash(want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if c.Node.Name == "" {
		t.Error("a node without a name")
	}
}

func TestNetworks(t *testing.T) {
	c, err := Load(Source{Environ: homed("BUILDMESH_ASSET_ALLOW=10.0.0.0/8, ::1,127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		if k.Name == "asset.allow" && k.Value(c) != "10.0.0.0/8,::1/128,127.0.0.1/32" {
			t.Errorf("shown as %s", k.Value(c))
		}
	}
}

func TestListInFile(t *testing.T) {
	c, err := Load(Source{File: write(t, "[asset]\nallow = [\"10.0.0.0/8\", \"127.0.0.1\"]"), Environ: homed()})
	if err != nil || len(c.Asset.Allow) != 2 {
		t.Errorf("got %v, %v", c.Asset.Allow, err)
	}
}

func TestDirectories(t *testing.T) {
	based, err := Load(Source{Environ: homed("XDG_RUNTIME_DIR=/run/user/7"), Settings: []Setting{
		{"dir.base", "/srv/bm", "--dir"}, {"listen.web", "off", "--web"}, {"dir.cache", "elsewhere", "--set"}}})
	if err != nil {
		t.Fatal(err)
	}
	cwd, _ := os.Getwd()
	if d := based.Dir; d.State != "/srv/bm/state" || d.Runtime != "/srv/bm/state/run" || d.Cache != filepath.Join(cwd, "elsewhere") {
		t.Errorf("directories under a base: %+v", d)
	}
	if based.Listen.Web != "" {
		t.Errorf("listen.web off gave %q", based.Listen.Web)
	}
	if _, err := Load(Source{}); err == nil || !strings.Contains(err.Error(), "set HOME") {
		t.Errorf("no home: %v", err)
	}
}

func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		env  string
		want string
	}{
		"unknown key":      {"[store]\nmax_sise = \"1GiB\"", "", ":2: unknown key store.max_sise; did you mean store.max_size?"},
		"far key":          {"[zebra]\nstripes = 4", "", ":2: unknown key zebra.stripes; `buildmesh config show` lists all"},
		"no section":       {"max_size = \"1GiB\"", "", ":1: unknown key max_size"},
		"not TOML":         {"[store]\nmax_size = ", "", ":2: "},
		"too small":        {"[store]\nmax_size = \"1MiB\"", "", ":2: store.max_size: 1MiB is too small: at least 64MiB"},
		"out of bounds":    {"[node]\ndrain = \"2h\"", "", ":2: node.drain: 2h is out of bounds: 0s to 1h"},
		"not a size":       {"[store]\nmax_size = \"many\"", "", "\"many\" is not a size like 512MiB"},
		"not a duration":   {"[node]\ndrain = \"5\"", "", "\"5\" is not a duration like 90s"},
		"not a bool":       {"[exec]\nenabled = \"perhaps\"", "", "neither true nor false"},
		"not a number":     {"[exec]\ncores = 1.5", "", "\"1.5\" is not a whole number"},
		"not a network":    {"[asset]\nallow = \"10.0.0.1, everywhere\"", "", "\"everywhere\" is neither an address nor a network"},
		"not a choice":     {"[log]\nlevel = \"loud\"", "", "\"loud\" is none of debug, info, warn, error"},
		"unknown variable": {"", "BUILDMESH_STORE_MAXSIZE=1", "BUILDMESH_STORE_MAXSIZE: unknown variable; did you mean BUILDMESH_STORE_MAX_SIZE?"},
		"bad variable":     {"", "BUILDMESH_STORE_MAX_SIZE=x", "BUILDMESH_STORE_MAX_SIZE: store.max_size: \"x\" is not a size"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Source{File: write(t, test.text), Environ: homed(test.env)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		_, err := Load(Source{File: write(t, "[log]\nlevel=\"x\"\nformat=\"y\""), Environ: homed()})
		if err == nil || strings.Count(err.Error(), "\n") != 1 {
			t.Errorf("want two lines, got %v", err)
		}
	})
	t.Run("named file must exist", func(t *testing.T) {
		if _, err := Load(Source{File: "/nowhere/c.toml", Environ: homed()}); err == nil {
			t.Error("a missing named file is no error")
		}
		if _, err := Load(Source{Environ: homed("BUILDMESH_CONFIG=/nowhere/c.toml")}); err == nil {
			t.Error("a missing file named by the environment is no error")
		}
	})
}

// TestKeys holds every key to what the table promises.
func TestKeys(t *testing.T) {
	seen := map[any]string{}
	c := &Config{}
	for _, k := range Keys() {
		field := k.at(c)
		if other := seen[field]; other != "" {
			t.Errorf("%s and %s set the same field", k.Name, other)
		}
		seen[field] = k.Name
		if len(k.Doc) < 20 || strings.Count(k.Name, ".") != 1 {
			t.Errorf("%s: name is not section.name, or no meaning given", k.Name)
		}
		if err := k.set(c, k.Default); err != nil {
			t.Errorf("%s: its default %q is refused: %v", k.Name, k.Default, err)
		}
		if got := k.Value(c); got != k.Default {
			t.Errorf("%s: default %q is shown as %q", k.Name, k.Default, got)
		}
	}
}

func TestTOMLIsAFileToStartFrom(t *testing.T) {
	c, err := Load(Source{Environ: homed("BUILDMESH_EXEC_CORES=3")})
	if err != nil {
		t.Fatal(err)
	}
	text := TOML(c)
	if !strings.Contains(text, "\ncores = 3\n") || !strings.Contains(text, "\n# lease = \"10m\"\n") {
		t.Errorf("set values stand plain and defaults as comments; got\n%s", text)
	}
	uncommented := strings.NewReplacer("\n# ", "\n").Replace(text)
	var valid []string
	for _, line := range strings.Split(uncommented, "\n") {
		if strings.HasPrefix(line, "[") || strings.Contains(line, " = ") {
			valid = append(valid, line)
		}
	}
	if _, err := Load(Source{File: write(t, strings.Join(valid, "\n")), Environ: homed()}); err != nil {
		t.Errorf("the file with every default written out is refused: %v", err)
	}
}

// TestReadmeTable keeps the README's table equal to the keys: go test ./node/config -update.
func TestReadmeTable(t *testing.T) {
	const path, begin, end = "../../README.md", "<!-- keys: begin -->\n", "<!-- keys: end -->"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), begin)
	table, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatal("the README has no place for the table of keys")
	}
	if table == Markdown() {
		return
	}
	if !*update {
		t.Fatal("the README's table of keys is old: go test ./node/config -update")
	}
	if err := os.WriteFile(path, []byte(before+begin+Markdown()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "4096": 4096, "1KiB": 1 << 10, "10GiB": 10 << 30, "1.5 GiB": 3 << 29, "10GB": 1e10,
		"2T": 2 << 40, "7B": 7, " 5 MB ": 5e6, "0.5K": 512, "8388607TiB": 8388607 << 40,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1e3", "1..5", "10 XB", "8388608TiB", "99999999999999999999", "0x10", "NaN", "+1"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"10GiB", "1.5T", "0", "9223372036854775807", "1e9", "..", "8388608TiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("ParseSize(%q) = %d", s, n)
		}
		if back, err := ParseSize(n.String()); err != nil || back != n {
			t.Fatalf("ParseSize(%q) = %d, written as %s, read as %d, %v", s, n, n, back, err)
		}
	})
}

func TestNearest(t *testing.T) {
	names := []string{"store.max_size", "store.min_free", "log.level"}
	for typed, want := range map[string]string{
		"store.maxsize": "store.max_size", "log.levle": "log.level", "stor.min_free": "store.min_free", "weather": "",
	} {
		if got := Nearest(typed, names); got != want {
			t.Errorf("Nearest(%s) = %q, want %q", typed, got, want)
		}
	}
	if d := distance("kitten", "sitting"); d != 3 {
		t.Errorf("distance(kitten, sitting) = %d, want 3", d)
	}
}
