package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"
)

// Setting is one key=value from the command line and the flag it was written with.
type Setting struct {
	Key, Value, Flag string
}

// Source is everything a configuration is made of. The zero File means the default place, where a
// missing file is no error; a File that is named must exist.
type Source struct {
	File     string
	Environ  []string // "NAME=value", as os.Environ gives
	Settings []Setting
}

// Load settles every key from src. All errors are returned together, one a line.
func Load(src Source) (*Config, error) {
	c := &Config{origins: make(map[string]Origin)}
	table := make(map[string]Key)
	for _, k := range Keys() {
		table[k.Name] = k
		if err := k.set(c, k.Default); err != nil {
			return nil, fmt.Errorf("default of %s: %w", k.Name, err)
		}
		c.origins[k.Name] = Origin{}
	}
	l := loader{config: c, keys: table}
	env := environment(src.Environ)
	l.file(src.File, env)
	l.environ(env)
	for _, s := range src.Settings {
		l.apply(s.Key, s.Value, Origin{Flag, s.Flag})
	}
	if len(l.errs) == 0 {
		l.settle(env)
	}
	if err := errors.Join(l.errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// loader gathers values and the errors met on the way.
type loader struct {
	config *Config
	keys   map[string]Key
	errs   []error
}

func (l *loader) fail(format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf(format, args...))
}

// apply sets one key; where names the place for error messages.
func (l *loader) apply(name, value string, from Origin) {
	where := from.Name
	k, found := l.keys[name]
	if !found {
		l.fail("%s: unknown key %s%s", where, name, l.hint(name))
		return
	}
	if err := k.set(l.config, value); err != nil {
		l.fail("%s: %s: %w", where, name, err)
		return
	}
	l.config.origins[name] = from
}

// hint is "; did you mean x?", or nothing when no key is near.
func (l *loader) hint(name string) string {
	names := make([]string, 0, len(l.keys))
	for n := range l.keys {
		names = append(names, n)
	}
	sort.Strings(names)
	if best := Nearest(name, names); best != "" {
		return fmt.Sprintf("; did you mean %s?", best)
	}
	return "; `buildmesh config show` lists all"
}

// environ applies the variables with our prefix. BUILDMESH_CONFIG names the file and is no key.
func (l *loader) environ(env map[string]string) {
	byEnv := make(map[string]string)
	for name, k := range l.keys {
		byEnv[k.Env()] = name
	}
	vars := make([]string, 0)
	for v := range env {
		if strings.HasPrefix(v, EnvPrefix) && v != EnvPrefix+"CONFIG" {
			vars = append(vars, v)
		}
	}
	sort.Strings(vars)
	for _, v := range vars {
		if name, found := byEnv[v]; found {
			l.apply(name, env[v], Origin{Environment, v})
			continue
		}
		known := make([]string, 0, len(byEnv))
		for e := range byEnv {
			known = append(known, e)
		}
		sort.Strings(known)
		if best := Nearest(v, known); best != "" {
			l.fail("%s: unknown variable; did you mean %s?", v, best)
		} else {
			l.fail("%s: unknown variable; `buildmesh config show` lists all keys", v)
		}
	}
}

// file applies the configuration file.
func (l *loader) file(path string, env map[string]string) {
	named := path != ""
	if !named {
		path, named = Path(env)
	}
	if path == "" {
		return
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return
	}
	if err != nil {
		l.fail("read configuration: %w", err)
		return
	}
	l.decode(path, string(data))
}

// decode applies the text of a configuration file.
func (l *loader) decode(path, text string) {
	var tables map[string]any
	if _, err := toml.Decode(text, &tables); err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) {
			l.fail("%s:%d: %s", path, parse.Position.Line, parse.Message)
		} else {
			l.fail("%s: %w", path, err)
		}
		return
	}
	values := make(map[string]string)
	flatten("", tables, values)
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	lines := lineNumbers(text)
	sort.Slice(names, func(i, j int) bool {
		if lines[names[i]] != lines[names[j]] {
			return lines[names[i]] < lines[names[j]]
		}
		return names[i] < names[j]
	})
	for _, name := range names {
		where := path
		if n := lines[name]; n > 0 {
			where = fmt.Sprintf("%s:%d", path, n)
		}
		l.apply(name, values[name], Origin{File, where})
	}
}

// flatten turns nested tables into dotted names.
func flatten(prefix string, table map[string]any, into map[string]string) {
	for name, v := range table {
		if prefix != "" {
			name = prefix + "." + name
		}
		if sub, ok := v.(map[string]any); ok {
			flatten(name, sub, into)
			continue
		}
		if list, ok := v.([]any); ok {
			v = strings.Trim(strings.Join(strings.Fields(fmt.Sprint(list)), ","), "[]")
		}
		into[name] = fmt.Sprint(v)
	}
}

// lineNumbers finds the line, from 1, on which each dotted key of a valid TOML text stands. Keys in
// quotes or inline tables are not found; their errors name the file alone.
func lineNumbers(text string) map[string]int {
	lines, section := make(map[string]int), ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if name, found := strings.CutPrefix(line, "["); found {
			name, _, _ = strings.Cut(name, "]")
			section = strings.TrimSpace(name) + "."
			continue
		}
		name, _, found := strings.Cut(line, "=")
		if name = section + strings.TrimSpace(name); found && lines[name] == 0 {
			lines[name] = i + 1
		}
	}
	return lines
}

// Path is where the configuration file is looked for, and whether the environment named it, so that
// it must exist. It is empty when there is no home directory.
func Path(env map[string]string) (path string, named bool) {
	if p := env[EnvPrefix+"CONFIG"]; p != "" {
		return p, true
	}
	dir := xdg(env, "XDG_CONFIG_HOME", ".config")
	if dir == "" {
		return "", false
	}
	return filepath.Join(dir, "buildmesh", "config.toml"), false
}

// settle fills what defaults to something on this machine and makes the directories absolute.
func (l *loader) settle(env map[string]string) {
	c := l.config
	cwd, err := os.Getwd()
	if err != nil {
		l.fail("find the current directory: %w", err)
		return
	}
	if c.Node.Name == "" {
		if c.Node.Name, err = os.Hostname(); err != nil || c.Node.Name == "" {
			c.Node.Name = "node"
		}
	}
	for _, dir := range []*string{&c.Dir.Base, &c.Dir.State, &c.Dir.Cache, &c.Dir.Runtime} {
		*dir = absolute(cwd, *dir)
	}
	l.directories(env)
	for _, addr := range []*string{&c.Listen.GRPC, &c.Listen.Socket, &c.Listen.Web, &c.Listen.QUIC} {
		if *addr == "off" {
			*addr = ""
		} else if addr == &c.Listen.Socket && *addr == "" {
			*addr = filepath.Join(c.Dir.Runtime, "buildmesh.sock")
		}
	}
	c.Listen.Socket = absolute(cwd, c.Listen.Socket)
	if c.Exec.DefaultTimeout > c.Exec.MaxTimeout {
		c.Exec.DefaultTimeout = c.Exec.MaxTimeout
	}
}

// directories gives the empty ones of state, cache and runtime their defaults.
func (l *loader) directories(env map[string]string) {
	d := &l.config.Dir
	home := func(variable, fallback, folder string) string {
		if d.Base != "" {
			return filepath.Join(d.Base, folder)
		}
		if dir := xdg(env, variable, fallback); dir != "" {
			return filepath.Join(dir, "buildmesh")
		}
		return ""
	}
	if d.State == "" {
		d.State = home("XDG_STATE_HOME", ".local/state", "state")
	}
	if d.Cache == "" {
		d.Cache = home("XDG_CACHE_HOME", ".cache", "cache")
	}
	if d.State == "" || d.Cache == "" {
		l.fail("no home directory to keep files in: set HOME, or dir.base (flag --dir)")
		return
	}
	if d.Runtime == "" {
		d.Runtime = filepath.Join(d.State, "run")
		if run := env["XDG_RUNTIME_DIR"]; d.Base == "" && filepath.IsAbs(run) {
			d.Runtime = filepath.Join(run, "buildmesh")
		}
	}
}

// xdg is a base directory by the XDG specification: the variable when absolute, else below home.
// On Windows home is %LOCALAPPDATA%. Empty when there is neither.
func xdg(env map[string]string, variable, fallback string) string {
	if dir := env[variable]; filepath.IsAbs(dir) {
		return dir
	}
	home := env["HOME"]
	if home == "" && runtime.GOOS == "windows" {
		home = env["LOCALAPPDATA"]
	}
	if home == "" {
		return ""
	}
	return filepath.Join(home, filepath.FromSlash(fallback))
}

// environment splits "NAME=value" pairs; of two with one name the last counts.
func environment(pairs []string) map[string]string {
	env := make(map[string]string, len(pairs))
	for _, p := range pairs {
		if name, value, found := strings.Cut(p, "="); found {
			env[name] = value
		}
	}
	return env
}
