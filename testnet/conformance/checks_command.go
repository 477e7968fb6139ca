//lint:file-ignore SA1019 fields that are deprecated are still sent by clients, and examined here

package conformance

import (
	"context"
	"slices"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
)

// commandChecks hold of what a command finds when it starts.
func commandChecks() []Check {
	exec := []Feature{Execution}
	return []Check{
		{
			Claim: "argv_0_may_be_absolute", Needs: exec, Run: checkAbsoluteCommand, Source: "Command.arguments",
			Rule: "an absolute path is run as it stands",
		},
		{
			Claim: "argv_0_may_be_relative_to_the_working_directory", Needs: exec, Run: checkRelativeCommand, Source: "Command.arguments, since 2.3",
			Rule: "a path with a slash is found from the working directory, not from the input root",
		},
		{
			Claim: "argv_0_may_be_bare", Needs: exec, Run: checkBareCommand, Source: "Command.arguments, since 2.3",
			Rule: "a name without a slash is looked up in the PATH of the Command",
		},
		{
			Claim: "arguments_arrive_unchanged", Needs: exec, Run: checkArguments, Source: "Command.arguments",
			Rule: "spaces, quotes, newlines, empty arguments and UTF-8 are no shell's business",
		},
		{
			Claim: "the_environment_is_the_Commands", Needs: exec, Run: checkEnvironment, Source: "Command.environment_variables",
			Rule: "every variable arrives with its value, empty ones and those with = and spaces too",
		},
		{
			Claim: "an_unsorted_environment_is_tolerated", Needs: exec, Level: Should, Run: checkUnsortedEnvironment, Source: "Command.environment_variables; rpc Execute: MAY proceed",
			Rule: "an unsorted environment, and unsorted outputs, are executed",
		},
		{
			Claim: "the_working_directory_is_the_input_root", Needs: exec, Run: checkRootIsWorkingDirectory, Source: "Command.working_directory",
			Rule: "without a working directory the command starts where its inputs are",
		},
		{
			Claim: "the_working_directory_may_be_below_the_root", Needs: exec, Run: checkWorkingDirectory, Source: "Command.working_directory; OutputFile.path",
			Rule: "the command starts there, and output paths are relative to it",
		},
		{
			Claim: "a_working_directory_outside_the_root_is_refused", Needs: exec, Run: checkWorkingDirectoryOutside, Source: "Command.working_directory: must be in the input tree",
			Rule: "an absolute path or one that leaves the root gets INVALID_ARGUMENT",
		},
		{
			Claim: "the_platform_of_the_action_comes_first", Needs: exec, Level: Should, Run: checkActionPlatform, Source: "Action.platform: servers SHOULD prefer those set here",
			Rule: "an unknown property in Command.platform does not matter when Action.platform is set",
		},
		{
			Claim: "the_platform_of_the_command_counts_when_the_action_has_none", Needs: exec, Level: Should, Run: checkCommandPlatform, Source: "Command.platform; clients of 2.0 and 2.1",
			Rule: "an unknown property there is refused as well",
		},
		{
			Claim: "an_unknown_platform_property_is_refused_by_name", Needs: exec, Level: Should, Run: checkUnknownProperty, Source: "Platform.Property: SHOULD reject; a person has to learn which",
			Rule: "FAILED_PRECONDITION or INVALID_ARGUMENT whose message contains the property's name, at once and not queued for ever",
		},
		{
			Claim: "a_command_that_does_not_exist_is_told", Needs: exec, Run: checkNoSuchCommand, Source: "rpc Execute",
			Rule: "an error status, or a result with an exit code other than 0: never a success, never a hang",
		},
		{
			Claim: "inputs_are_there", Needs: exec, Run: checkInputs, Source: "Action.input_root_digest",
			Rule: "files with their bytes, the empty file, executable bits, directories, empty ones too, and symlinks",
		},
		{
			Claim: "inputs_cannot_be_spoiled", Needs: exec, Run: checkInputsSpoiled, Source: "message Digest: what is stored is what its digest says",
			Rule: "an action that overwrites, truncates or deletes its inputs changes them for no other action, and not in the CAS",
		},
		{
			Claim: "nothing_is_left_from_another_action", Needs: exec, Run: checkLeftovers, Source: "Action.input_root_digest",
			Rule: "an action sees its inputs and no file another one made",
		},
		{
			Claim: "priorities_in_the_range_are_accepted", Needs: exec, Run: checkPriorityAccepted, Source: "message ExecutionPolicy",
			Rule: "each end of the advertised range, and 0, executes",
		},
	}
}

func (s *Subject) runCommand(ctx context.Context, t T, c *repb.Command, root *repb.Digest) Run {
	t.Helper()
	return s.Execute(ctx, t, c, s.Action(t, c, root))
}

func checkAbsoluteCommand(ctx context.Context, t T, s *Subject) {
	if got := s.said(ctx, t, s.ExecuteShell(ctx, t, "echo hello")); got != "hello" {
		t.Errorf("/bin/sh -c 'echo hello' printed %q", got)
	}
}

func checkRelativeCommand(ctx context.Context, t T, s *Subject) {
	root := s.Root(ctx, t, map[string]string{
		"tool*": "#!/bin/sh\necho root\n", "sub/tool*": "#!/bin/sh\necho sub $1\n", "sub/bin/tool*": "#!/bin/sh\necho bin\n",
	})
	for argument, want := range map[string]string{"./tool": "sub x", "bin/tool": "bin", "../tool": "root"} {
		c := s.Shell("")
		c.Arguments, c.WorkingDirectory = []string{argument, "x"}, "sub"
		if got := s.said(ctx, t, s.runCommand(ctx, t, c, root)); got != want {
			t.Errorf("%s in working directory sub printed %q, want %q", argument, got, want)
		}
	}
}

func checkBareCommand(ctx context.Context, t T, s *Subject) {
	c := s.Shell("")
	c.Arguments = []string{"sh", "-c", "echo bare"}
	if got := s.said(ctx, t, s.runCommand(ctx, t, c, s.Empty())); got != "bare" {
		t.Errorf("sh -c 'echo bare' printed %q", got)
	}
}

func checkArguments(ctx context.Context, t T, s *Subject) {
	c := s.Shell("")
	odd := []string{"two words", "", `"quoted" 'twice'`, "$HOME `id` $(id)", "line\nbreak", "ünïcödé", "*", "--", "back\\slash"}
	c.Arguments = append([]string{"/bin/sh", "-c", `for a in "$@"; do printf '<%s>' "$a"; done`, "sh"}, odd...)
	want := "<" + strings.Join(odd, "><") + ">"
	if got := s.stdout(ctx, t, s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)); got != want {
		t.Errorf("the arguments arrived as %q, want %q", got, want)
	}
}

// environment adds variables to a command, sorted.
func environment(c *repb.Command, vars map[string]string) {
	for name, value := range vars {
		c.EnvironmentVariables = append(c.EnvironmentVariables, &repb.Command_EnvironmentVariable{Name: name, Value: value})
	}
	slices.SortFunc(c.EnvironmentVariables, func(a, b *repb.Command_EnvironmentVariable) int { return strings.Compare(a.Name, b.Name) })
}

func checkEnvironment(ctx context.Context, t T, s *Subject) {
	c := s.Shell(`printf '<%s><%s><%s><%s>' "$A" "${B-unset}" "$C" "$PATH"`)
	environment(c, map[string]string{"A": "x = y  z", "B": "", "C": "ü\n$A"})
	want := "<x = y  z><><ü\n$A><" + searchPath + ">"
	if got := s.stdout(ctx, t, s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)); got != want {
		t.Errorf("the environment arrived as %q, want %q", got, want)
	}
}

func checkUnsortedEnvironment(ctx context.Context, t T, s *Subject) {
	c := s.Shell("echo $B$A > b; echo a > a")
	c.OutputPaths = []string{"b", "a"}
	c.EnvironmentVariables = append(c.EnvironmentVariables, &repb.Command_EnvironmentVariable{Name: "B", Value: "1"},
		&repb.Command_EnvironmentVariable{Name: "A", Value: "2"})
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
	s.wantFile(ctx, t, result, "b", "12\n")
	s.wantFile(ctx, t, result, "a", "a\n")
}

func checkRootIsWorkingDirectory(ctx context.Context, t T, s *Subject) {
	root := s.Root(ctx, t, map[string]string{"here": "yes"})
	if got := s.said(ctx, t, s.runCommand(ctx, t, s.Shell("cat here"), root)); got != "yes" {
		t.Errorf("cat of an input in the root printed %q", got)
	}
}

func checkWorkingDirectory(ctx context.Context, t T, s *Subject) {
	root := s.Root(ctx, t, map[string]string{"a/b/in": "deep", "top": "high"})
	c := s.Shell("cat in ../../top > out; mkdir -p d/e; cp in d/e/f", "d", "out")
	c.WorkingDirectory = "a/b"
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, root), 0)
	s.wantFile(ctx, t, result, "out", "deephigh")
	s.wantTree(ctx, t, result, "d", map[string]string{"e/f": "deep"})
}

func checkWorkingDirectoryOutside(ctx context.Context, t T, s *Subject) {
	for _, dir := range []string{"..", "a/../..", "/tmp", "../"} {
		c := s.Shell("true")
		c.WorkingDirectory = dir
		if r := s.runCommand(ctx, t, c, s.Empty()); r.Code() != codes.InvalidArgument {
			t.Errorf("working directory %q ended with %s (%s), want InvalidArgument", dir, r.Code(), r.Why())
		}
	}
}

// foreign is a platform property no server knows.
func foreign() *repb.Platform {
	return &repb.Platform{Properties: []*repb.Platform_Property{{Name: "conformance-unheard-of", Value: "1"}}}
}

func checkActionPlatform(ctx context.Context, t T, s *Subject) {
	c := s.Shell("echo ran")
	c.Platform = foreign()
	a := s.Action(t, c, s.Empty())
	a.Platform = &repb.Platform{Properties: s.platform}
	if len(s.platform) == 0 {
		a.Platform.Properties = []*repb.Platform_Property{{Name: "OSFamily", Value: "linux"}}
	}
	r := s.Execute(ctx, t, c, a)
	if len(s.platform) == 0 && r.Code() != codes.OK && !strings.Contains(r.Why(), "unheard-of") {
		t.Skipf("no platform property is known that the server takes: give one with -platform (%s)", r.Why())
	}
	if got := s.said(ctx, t, r); got != "ran" {
		t.Errorf("an action with a platform of its own printed %q", got)
	}
}

// wantPropertyRefused wants the unknown property refused and named.
func wantPropertyRefused(t T, r Run) {
	t.Helper()
	if code := r.Code(); code != codes.FailedPrecondition && code != codes.InvalidArgument {
		t.Errorf("an action with an unknown platform property ended with %s (%s), want FailedPrecondition", code, r.Why())
	} else if !strings.Contains(r.Why(), "conformance-unheard-of") {
		t.Errorf("the refusal %q does not name the property conformance-unheard-of", r.Why())
	}
}

func checkCommandPlatform(ctx context.Context, t T, s *Subject) {
	c := s.Shell("true")
	c.Platform = foreign()
	a := s.Action(t, c, s.Empty())
	a.Platform = nil
	wantPropertyRefused(t, s.Execute(ctx, t, c, a))
}

func checkUnknownProperty(ctx context.Context, t T, s *Subject) {
	c := s.Shell("true")
	a := s.Action(t, c, s.Empty())
	a.Platform = foreign()
	wantPropertyRefused(t, s.Execute(ctx, t, c, a))
}

func checkNoSuchCommand(ctx context.Context, t T, s *Subject) {
	root := s.Root(ctx, t, map[string]string{"plain": "not executable", "dir/": ""})
	for _, name := range []string{"/no/such/command", "./absent", "no-such-command-anywhere", "./plain", "./dir"} {
		c := s.Shell("")
		c.Arguments = []string{name}
		r := s.runCommand(ctx, t, c, root)
		if r.Code() == codes.OK && r.Response.GetResult().GetExitCode() == 0 {
			t.Errorf("the command %s, which cannot be run, passes for a success", name)
		}
		if r.Code() == codes.DeadlineExceeded {
			t.Errorf("the command %s, which cannot be run, hangs", name)
		}
	}
}

func checkInputs(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, []byte("#!/bin/sh\necho run\n"), []byte("data"))
	sub := s.PutMessage(ctx, t, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: d[1]}}})
	root := s.PutMessage(ctx, t, &repb.Directory{
		Files: []*repb.FileNode{
			{Name: "empty", Digest: s.Empty()}, {Name: "plain", Digest: d[1]}, {Name: "tool", Digest: d[0], IsExecutable: true},
			{Name: "with space", Digest: d[1]}, {Name: "ünïcödé", Digest: d[1]},
		},
		Directories: []*repb.DirectoryNode{{Name: "hollow", Digest: s.Empty()}, {Name: "sub", Digest: sub}},
		Symlinks: []*repb.SymlinkNode{
			{Name: "dangling", Target: "nowhere"}, {Name: "dirlink", Target: "sub"}, {Name: "link", Target: "sub/../sub/f"},
		},
	})
	script := `test -f empty && test ! -s empty && test "$(cat plain)" = data && test ! -x plain && test "$(./tool)" = run &&
test "$(cat 'with space')" = data && test "$(cat ünïcödé)" = data && test -d hollow && test -z "$(ls -A hollow)" &&
test -L dangling && test ! -e dangling && test -L dirlink && test "$(cat dirlink/f)" = data && test -L link && test "$(cat link)" = data &&
ls -A | wc -l`
	if got := s.said(ctx, t, s.runCommand(ctx, t, s.Shell(script), root)); got != "10" {
		t.Errorf("the input root has %s entries, want 10", got)
	}
}

func checkInputsSpoiled(ctx context.Context, t T, s *Subject) {
	small, large := string(s.Text(100)), string(s.Text(300_000))
	root := s.Root(ctx, t, map[string]string{"small": small, "dir/large": large, "gone": small})
	spoil := `chmod -R u+w . 2>/dev/null; for f in small dir/large; do echo spoiled >> $f; : > $f; rm -f $f; echo other > $f; done; rm -f gone; true`
	s.Result(ctx, t, s.runCommand(ctx, t, s.Shell("("+spoil+") 2>/dev/null; true"), root), 0)
	c := s.Shell("cat small gone dir/large | cksum; wc -c < dir/large")
	got := s.said(ctx, t, s.runCommand(ctx, t, c, root))
	whole := s.Root(ctx, t, map[string]string{"all": small + small + large, "large": large})
	want := s.said(ctx, t, s.runCommand(ctx, t, s.Shell("cksum < all; wc -c < large"), whole))
	if got != want {
		t.Errorf("after an action overwrote its inputs the next one sees %q, want %q", got, want)
	}
	s.WantReadable(ctx, t, []byte(small))
	s.WantReadable(ctx, t, []byte(large))
}

func checkLeftovers(ctx context.Context, t T, s *Subject) {
	root := s.Root(ctx, t, map[string]string{"in": "x", "dir/in": "y"})
	s.Result(ctx, t, s.runCommand(ctx, t, s.Shell("echo left > left; echo left > dir/left; true"), root), 0)
	got := strings.Fields(s.said(ctx, t, s.runCommand(ctx, t, s.Shell("find . -type f | sort"), root)))
	if want := []string{"./dir/in", "./in"}; !slices.Equal(got, want) {
		t.Errorf("a second action on the same inputs sees the files %v, want %v", got, want)
	}
}

func checkPriorityAccepted(ctx context.Context, t T, s *Subject) {
	priorities := []int32{0}
	for _, r := range s.Capabilities.GetExecutionCapabilities().GetExecutionPriorityCapabilities().GetPriorities() {
		priorities = append(priorities, r.MinPriority, r.MaxPriority)
	}
	for _, p := range priorities {
		r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{
			ActionDigest: s.newAction(ctx, t, "echo ok"), ExecutionPolicy: &repb.ExecutionPolicy{Priority: p},
			ResultsCachePolicy: &repb.ResultsCachePolicy{},
		})
		if r.Code() != codes.OK {
			t.Errorf("Execute with priority %d: %s %s", p, r.Code(), r.Why())
		}
	}
}
