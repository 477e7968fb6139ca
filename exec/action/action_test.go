//lint:file-ignore SA1019 clients of API 2.0 and 2.1 send the deprecated fields, and they must be understood

package action

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// fakeBlobs is a store in a map. The empty blob is always there.
type fakeBlobs struct {
	content map[digest.Digest][]byte
	err     error // what every call fails with, when set
}

func (f *fakeBlobs) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	out := make([][]byte, len(ds))
	for i, d := range ds {
		if out[i] = f.content[d]; d.IsEmpty() {
			out[i] = []byte{}
		}
	}
	return out, f.err
}

func (f *fakeBlobs) Missing(_ context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	var missing []digest.Digest
	for _, d := range ds {
		if _, found := f.content[d]; !found && !d.IsEmpty() {
			missing = append(missing, d)
		}
	}
	return missing, f.err
}

func (f *fakeBlobs) putBytes(data []byte) digest.Digest {
	d := digest.SHA256.Of(data)
	f.content[d] = data
	return d
}

func (f *fakeBlobs) put(t testing.TB, m proto.Message) digest.Digest {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return f.putBytes(data)
}

// fixture is an action in a store that tests bend in one place.
type fixture struct {
	blobs   *fakeBlobs
	action  *repb.Action
	command *repb.Command
	root    *repb.Directory
	limits  Limits
}

func newFixture() *fixture {
	return &fixture{
		blobs:   &fakeBlobs{content: map[digest.Digest][]byte{}},
		action:  &repb.Action{},
		command: &repb.Command{Arguments: []string{"/bin/true"}},
		root:    &repb.Directory{},
	}
}

// decode stores the fixture and decodes it.
func (f *fixture) decode(t testing.TB) (*Action, error) {
	t.Helper()
	f.action.CommandDigest = f.blobs.put(t, f.command).Proto()
	f.action.InputRootDigest = f.blobs.put(t, f.root).Proto()
	return Decode(t.Context(), f.blobs, f.blobs.put(t, f.action), f.limits)
}

func platformOf(pairs ...string) *repb.Platform {
	p := &repb.Platform{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		p.Properties = append(p.Properties, &repb.Platform_Property{Name: name, Value: value})
	}
	return p
}

// buildStream is the shape of the actions that BuildStream sends.
func buildStream() *fixture {
	f := newFixture()
	f.command = &repb.Command{
		Arguments:             []string{"sh", "-c", "-e", "make"},
		EnvironmentVariables:  []*repb.Command_EnvironmentVariable{{Name: "PATH", Value: "/usr/bin"}, {Name: "HOME", Value: "/tmp"}},
		WorkingDirectory:      "buildstream/project/element.bst",
		OutputPaths:           []string{".", "../../../buildstream-install"},
		OutputDirectoryFormat: repb.Command_DIRECTORY_ONLY,
		OutputNodeProperties:  []string{"mtime"},
		Platform:              platformOf("OSFamily=linux", "ISA=x86-64"),
	}
	for _, name := range []string{"dev", "proc", "tmp", "usr"} {
		f.root.Directories = append(f.root.Directories, &repb.DirectoryNode{Name: name, Digest: digest.SHA256.Empty().Proto()})
	}
	return f
}

func TestDecodeBuildStream(t *testing.T) {
	f := buildStream()
	a, err := f.decode(t)
	if err != nil {
		t.Fatal(err)
	}
	want := []Output{
		{Path: ".", Clean: "buildstream/project/element.bst"},
		{Path: "../../../buildstream-install", Clean: "buildstream-install"},
	}
	if !reflect.DeepEqual(a.Outputs, want) {
		t.Errorf("outputs %+v", a.Outputs)
	}
	if !reflect.DeepEqual(a.Env, []string{"PATH=/usr/bin", "HOME=/tmp"}) {
		t.Errorf("environment %q, want it in the order sent", a.Env)
	}
	if !a.WholeRoot || a.Legacy || a.Timeout != 0 || a.Format != repb.Command_DIRECTORY_ONLY || a.Platform.OSFamily != "linux" {
		t.Errorf("action %+v", a)
	}
	if a.Digest.IsZero() || a.InputRoot != f.blobs.put(t, f.root) || a.CommandDigest != f.blobs.put(t, f.command) {
		t.Errorf("digests of %+v", a)
	}
}

func TestDecodeAccepts(t *testing.T) {
	for _, c := range []struct {
		name  string
		bend  func(*fixture)
		check func(*Action) bool
	}{
		{"no outputs", func(*fixture) {}, func(a *Action) bool { return len(a.Outputs) == 0 && !a.Legacy }},
		{"the legacy lists", func(f *fixture) {
			f.command.OutputFiles = []string{"a/b", "c"}
			f.command.OutputDirectories = []string{"", "d", "d/e"}
		}, func(a *Action) bool {
			return a.Legacy && len(a.Outputs) == 5 && a.Outputs[2] == Output{Path: "", Clean: ".", Directory: true} && !a.Outputs[0].Directory
		}},
		{"output_paths before the legacy lists, whatever these say", func(f *fixture) {
			f.command.OutputPaths = []string{"x", "x/y"}
			f.command.OutputFiles = []string{"/absolute"}
		}, func(a *Action) bool { return !a.Legacy && len(a.Outputs) == 2 }},
		{"working directory", func(f *fixture) { f.command.WorkingDirectory = "a/./b/" }, func(a *Action) bool { return a.WorkingDirectory == "a/b" }},
		{"working directory at the root", func(f *fixture) { f.command.WorkingDirectory = "." }, func(a *Action) bool { return a.WorkingDirectory == "" }},
		{"working directory by a detour", func(f *fixture) { f.command.WorkingDirectory = "a/../b" }, func(a *Action) bool { return a.WorkingDirectory == "b" }},
		{"timeout", func(f *fixture) { f.action.Timeout = durationpb.New(time.Minute) }, func(a *Action) bool { return a.Timeout == time.Minute }},
		{"the longest timeout", func(f *fixture) {
			f.limits.MaxTimeout = time.Minute
			f.action.Timeout = durationpb.New(time.Minute)
		}, func(a *Action) bool { return a.Timeout == time.Minute }},
		{"do_not_cache", func(f *fixture) { f.action.DoNotCache = true }, func(a *Action) bool { return a.DoNotCache }},
		{"node properties", func(f *fixture) { f.command.OutputNodeProperties = []string{"unix_mode", "mtime", "mtime"} },
			func(a *Action) bool { return slices.Equal(a.OutputNodeProperties, []string{"mtime", "unix_mode"}) }},
		{"unknown directory format", func(f *fixture) { f.command.OutputDirectoryFormat = 77 }, func(a *Action) bool { return a.Format == repb.Command_TREE_ONLY }},
		{"platform of the Command", func(f *fixture) { f.command.Platform = platformOf("cores=2") }, func(a *Action) bool { return a.Platform.Cores == 2 }},
		{"platform of the Action wins whole", func(f *fixture) {
			f.command.Platform = platformOf("cores=2", "unknown=1")
			f.action.Platform = platformOf("min-mem=1")
		}, func(a *Action) bool { return a.Platform.Cores == 0 && a.Platform.MemoryBytes == 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture()
			c.bend(f)
			a, err := f.decode(t)
			if err != nil {
				t.Fatal(err)
			}
			if !c.check(a) {
				t.Errorf("decoded as %+v", a)
			}
		})
	}
}

func variable(name, value string) *repb.Command_EnvironmentVariable {
	return &repb.Command_EnvironmentVariable{Name: name, Value: value}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name, field string
		bend        func(*fixture)
	}{
		{"no arguments", "arguments", func(f *fixture) { f.command.Arguments = nil }},
		{"empty command name", "arguments[0]", func(f *fixture) { f.command.Arguments = []string{"", "x"} }},
		{"NUL in an argument", "arguments[1]", func(f *fixture) { f.command.Arguments = []string{"x", "a\x00b"} }},
		{"variable twice", "environment_variables[2]", func(f *fixture) {
			f.command.EnvironmentVariables = []*repb.Command_EnvironmentVariable{variable("B", "1"), variable("A", "1"), variable("B", "1")}
		}},
		{"variable without a name", "environment_variables[0]", func(f *fixture) {
			f.command.EnvironmentVariables = []*repb.Command_EnvironmentVariable{variable("", "1")}
		}},
		{"variable with = in its name", "environment_variables[0]", func(f *fixture) {
			f.command.EnvironmentVariables = []*repb.Command_EnvironmentVariable{variable("A=B", "1")}
		}},
		{"NUL in a variable", "environment_variables[0]", func(f *fixture) {
			f.command.EnvironmentVariables = []*repb.Command_EnvironmentVariable{variable("A", "\x00")}
		}},
		{"absolute working directory", "working_directory", func(f *fixture) { f.command.WorkingDirectory = "/a" }},
		{"working directory outside", "working_directory", func(f *fixture) { f.command.WorkingDirectory = "a/../../b" }},
		{"output outside", "output_paths[1]", func(f *fixture) {
			f.command.WorkingDirectory = "a"
			f.command.OutputPaths = []string{"../b", "../../c"}
		}},
		{"the root's parent as output", "output_paths[0]", func(f *fixture) { f.command.OutputPaths = []string{".."} }},
		{"absolute output", "output_paths[0]", func(f *fixture) { f.command.OutputPaths = []string{"/a"} }},
		{"trailing slash", "output_paths[0]", func(f *fixture) { f.command.OutputPaths = []string{"a/"} }},
		{"NUL in an output", "output_paths[0]", func(f *fixture) { f.command.OutputPaths = []string{"a\x00"} }},
		{"output twice", "output_paths[1]", func(f *fixture) { f.command.OutputPaths = []string{"a", "./a"} }},
		{"empty output file", "output_files[0]", func(f *fixture) { f.command.OutputFiles = []string{""} }},
		{"output file below an output file", "output_files[0]", func(f *fixture) { f.command.OutputFiles = []string{"a/b/c", "a"} }},
		{"output file as directory too", "output_directories[0]", func(f *fixture) {
			f.command.OutputFiles, f.command.OutputDirectories = []string{"a"}, []string{"a"}
		}},
		{"too many outputs", "output_paths", func(f *fixture) {
			f.limits.MaxOutputs = 2
			f.command.OutputPaths = []string{"a", "b", "c"}
		}},
		{"unknown node property", "output_node_properties[1]", func(f *fixture) { f.command.OutputNodeProperties = []string{"mtime", "owner"} }},
		{"negative timeout", "timeout", func(f *fixture) { f.action.Timeout = durationpb.New(-1) }},
		{"malformed timeout", "timeout", func(f *fixture) { f.action.Timeout = &durationpb.Duration{Seconds: 1, Nanos: -1} }},
		{"timeout above the maximum", "timeout", func(f *fixture) {
			f.limits.MaxTimeout = time.Minute
			f.action.Timeout = durationpb.New(time.Minute + 1)
		}},
		{"platform property without sense", "platform.cores", func(f *fixture) { f.action.Platform = platformOf("cores=x") }},
		{"action too large", "Action", func(f *fixture) { f.limits.MaxMessageBytes = 40 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture()
			c.bend(f)
			_, err := f.decode(t)
			if e, ok := errors.AsType[*InvalidError](err); !ok || e.Field != c.field {
				t.Errorf("%v, want an InvalidError about %s", err, c.field)
			}
		})
	}
}

func TestDecodeRefusesBadMessages(t *testing.T) {
	f := newFixture()
	garbage := f.blobs.putBytes([]byte{0xff, 0xff, 0xff})
	for name, c := range map[string]struct {
		action *repb.Action
		field  string
	}{
		"no command":            {&repb.Action{InputRootDigest: garbage.Proto()}, "command_digest"},
		"no input root":         {&repb.Action{CommandDigest: garbage.Proto()}, "input_root_digest"},
		"malformed digest":      {&repb.Action{CommandDigest: &repb.Digest{Hash: "xyz"}, InputRootDigest: garbage.Proto()}, "command_digest"},
		"command is no message": {&repb.Action{CommandDigest: garbage.Proto(), InputRootDigest: garbage.Proto()}, "Command"},
	} {
		_, err := Decode(t.Context(), f.blobs, f.blobs.put(t, c.action), Limits{})
		if e, ok := errors.AsType[*InvalidError](err); !ok || e.Field != c.field {
			t.Errorf("%s: %v, want an InvalidError about %s", name, err, c.field)
		}
	}
	if _, err := Decode(t.Context(), f.blobs, garbage, Limits{}); err == nil {
		t.Error("garbage passes for an Action")
	}
}

func TestUnknownPropertyIsNamed(t *testing.T) {
	f := newFixture()
	f.command.Platform = platformOf("OSFamily=linux", "GPU=4")
	_, err := f.decode(t)
	if e, ok := errors.AsType[*UnsupportedError](err); !ok || e.Property != "GPU" {
		t.Errorf("%v, want an UnsupportedError about GPU", err)
	}
	if !strings.Contains(err.Error(), "GPU") {
		t.Errorf("%q does not name the property", err)
	}
}

func TestWholeRoot(t *testing.T) {
	for _, c := range []struct {
		name string
		bend func(*fixture)
		want bool
	}{
		{"all of the heuristic", func(*fixture) {}, true},
		{"another directory format", func(f *fixture) { f.command.OutputDirectoryFormat = repb.Command_TREE_ONLY }, false},
		{"a path as argv[0]", func(f *fixture) { f.command.Arguments[0] = "/bin/sh" }, false},
		{"no ISA", func(f *fixture) { f.command.Platform = platformOf("OSFamily=linux") }, false},
		{"no OSFamily", func(f *fixture) { f.command.Platform = platformOf("ISA=x86-64") }, false},
		{"no proc at the top", func(f *fixture) { f.root.Directories[1].Name = "process" }, false},
		{"the property says no", func(f *fixture) {
			f.command.Platform = platformOf("OSFamily=linux", "ISA=x86-64", "InputRootAbsolutePath=/build")
		}, false},
		{"the property alone says yes", func(f *fixture) {
			*f = *newFixture()
			f.command.Platform = platformOf("InputRootAbsolutePath=/")
		}, true},
		{"the instance says yes", func(f *fixture) {
			*f = *newFixture()
			f.limits.WholeRoot = true
		}, true},
	} {
		f := buildStream()
		c.bend(f)
		if a, err := f.decode(t); err != nil || a.WholeRoot != c.want {
			t.Errorf("%s: %v, %v, want %v", c.name, a, err, c.want)
		}
	}
}

// missingOf gives the digests of a MissingError, sorted.
func missingOf(t *testing.T, err error) []string {
	t.Helper()
	e, ok := errors.AsType[*MissingError](err)
	if !ok {
		t.Fatalf("%v is no MissingError", err)
	}
	return texts(e.Digests...)
}

func texts(ds ...digest.Digest) []string {
	out := make([]string, len(ds))
	for i, d := range ds {
		out[i] = d.String()
	}
	slices.Sort(out)
	return out
}

func TestEverythingMissingIsListedAtOnce(t *testing.T) {
	f := newFixture()
	present, lost, deep := f.blobs.putBytes([]byte("present")), digest.SHA256.Of([]byte("lost")), digest.SHA256.Of([]byte("deep"))
	lostDirectory := digest.SHA256.Of([]byte("a directory that nobody has"))
	sub := f.blobs.put(t, &repb.Directory{
		Files:       []*repb.FileNode{{Name: "deep", Digest: deep.Proto()}, {Name: "again", Digest: lost.Proto()}, {Name: "empty", Digest: digest.SHA256.Empty().Proto()}},
		Directories: []*repb.DirectoryNode{{Name: "lost", Digest: lostDirectory.Proto()}},
	})
	f.root = &repb.Directory{
		Files:       []*repb.FileNode{{Name: "present", Digest: present.Proto()}, {Name: "lost", Digest: lost.Proto()}},
		Directories: []*repb.DirectoryNode{{Name: "sub", Digest: sub.Proto()}, {Name: "twin", Digest: sub.Proto()}},
	}
	if _, err := f.decode(t); err != nil {
		t.Fatalf("decoding does not need the inputs, and yet: %v", err)
	}
	root := f.blobs.put(t, f.root)
	missing, err := MissingInputs(t.Context(), f.blobs, root)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := texts(missing...), texts(lost, deep, lostDirectory); !slices.Equal(got, want) {
		t.Errorf("inputs: missing %v, want %v", got, want)
	}

	command := digest.SHA256.Of([]byte("a command that nobody has"))
	orphan := f.blobs.put(t, &repb.Action{CommandDigest: command.Proto(), InputRootDigest: root.Proto()})
	_, err = Decode(t.Context(), f.blobs, orphan, Limits{})
	if got, want := missingOf(t, err), texts(command, lost, deep, lostDirectory); !slices.Equal(got, want) {
		t.Errorf("command and inputs: missing %v, want %v", got, want)
	}

	absent := digest.SHA256.Of([]byte("an action that nobody has"))
	_, err = Decode(t.Context(), f.blobs, absent, Limits{})
	if got := missingOf(t, err); !slices.Equal(got, texts(absent)) {
		t.Errorf("action: missing %v", got)
	}

	f = buildStream()
	f.action.InputRootDigest, f.action.CommandDigest = absent.Proto(), f.blobs.put(t, f.command).Proto()
	_, err = Decode(t.Context(), f.blobs, f.blobs.put(t, f.action), Limits{})
	if got := missingOf(t, err); !slices.Equal(got, texts(absent)) {
		t.Errorf("root of a BuildStream action: missing %v", got)
	}
}

func TestMissingInputsRefusesWhatIsNoTree(t *testing.T) {
	f := newFixture()
	bad := &repb.Digest{Hash: "12", SizeBytes: 1}
	for name, root := range map[string]digest.Digest{
		"bytes that are no Directory": f.blobs.putBytes([]byte{0xff}),
		"file with a bad digest":      f.blobs.put(t, &repb.Directory{Files: []*repb.FileNode{{Name: "x", Digest: bad}}}),
		"directory without a digest":  f.blobs.put(t, &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "x"}}}),
	} {
		_, err := MissingInputs(t.Context(), f.blobs, root)
		if e, ok := errors.AsType[*InvalidError](err); !ok || e.Field != "input_root_digest" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStoreErrorsPassThrough(t *testing.T) {
	f := newFixture()
	if _, err := f.decode(t); err != nil {
		t.Fatal(err)
	}
	f.blobs.err = errors.New("disk on fire")
	if _, err := f.decode(t); !errors.Is(err, f.blobs.err) {
		t.Errorf("Decode: %v", err)
	}
	if _, err := MissingInputs(t.Context(), f.blobs, digest.SHA256.Of([]byte("x"))); !errors.Is(err, f.blobs.err) {
		t.Errorf("MissingInputs: %v", err)
	}
}

func TestMissingErrorStaysShort(t *testing.T) {
	var e MissingError
	for i := range 1000 {
		e.Digests = append(e.Digests, digest.SHA256.Of([]byte{byte(i), byte(i >> 8)}))
	}
	if text := e.Error(); len(text) > 200 || !strings.Contains(text, "1000") {
		t.Errorf("error text: %s", text)
	}
}

func FuzzDecode(f *testing.F) {
	seed := func(x *fixture) {
		action, err := proto.Marshal(x.action)
		if err != nil {
			f.Fatal(err)
		}
		command, err := proto.Marshal(x.command)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(action, command)
	}
	seed(newFixture())
	seed(buildStream())
	legacy := newFixture()
	legacy.command.OutputFiles, legacy.command.OutputDirectories = []string{"a/../b"}, []string{"", "c"}
	legacy.command.WorkingDirectory = "x/../../y"
	seed(legacy)
	f.Fuzz(func(t *testing.T, actionBytes, commandBytes []byte) {
		blobs := &fakeBlobs{content: map[digest.Digest][]byte{}}
		m := &repb.Action{}
		if proto.Unmarshal(actionBytes, m) == nil { // make it point to what is there, else nothing is tried
			m.CommandDigest = blobs.putBytes(commandBytes).Proto()
			m.InputRootDigest = digest.SHA256.Empty().Proto()
			actionBytes, _ = proto.Marshal(m)
		}
		a, err := Decode(t.Context(), blobs, blobs.putBytes(actionBytes), Limits{})
		if err != nil {
			return
		}
		if len(a.Arguments) == 0 || a.Arguments[0] == "" || a.Timeout < 0 {
			t.Errorf("accepted %+v", a)
		}
		for _, p := range append([]Output{{Clean: a.WorkingDirectory}}, a.Outputs...) {
			if p.Clean == ".." || strings.HasPrefix(p.Clean, "../") || strings.HasPrefix(p.Clean, "/") || strings.HasSuffix(p.Path, "/") {
				t.Errorf("accepted the path %q as %q", p.Path, p.Clean)
			}
		}
		for _, v := range a.Env {
			if strings.HasPrefix(v, "=") || !strings.Contains(v, "=") || strings.ContainsRune(v, 0) {
				t.Errorf("accepted the variable %q", v)
			}
		}
	})
}
