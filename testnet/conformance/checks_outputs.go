//lint:file-ignore SA1019 fields that are deprecated are still sent by clients, and examined here

package conformance

import (
	"context"
	"slices"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/bazelbuild/remote-apis/build/bazel/semver"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// outputChecks hold of what comes back from a command.
func outputChecks() []Check {
	exec := []Feature{Execution}
	return []Check{
		{
			Claim: "output_files_come_back", Needs: exec, Run: checkOutputFiles, Source: "ActionResult.output_files",
			Rule: "files, large and empty ones, are in the CAS under the digest and the path of the request",
		},
		{
			Claim: "parents_of_outputs_exist_before_the_command_runs", Needs: exec, Run: checkOutputParents, Source: "Command.output_paths: directories leading up to the output paths",
			Rule: "the directories above each output are made, the output itself is not",
		},
		{
			Claim: "a_missing_output_is_left_out", Needs: exec, Run: checkMissingOutput, Source: "ActionResult.output_files",
			Rule: "an output the command did not make is absent from the result, which is otherwise as it would be",
		},
		{
			Claim: "only_listed_outputs_come_back", Needs: exec, Run: checkUnlistedOutput, Source: "Command.output_paths",
			Rule: "other files the command made are discarded",
		},
		{
			Claim: "output_paths_supersede_the_old_fields", Needs: exec, Run: checkOldFieldsIgnored, Source: "Command.output_paths, since 2.1",
			Rule: "with output_paths set, output_files and output_directories are ignored",
		},
		{
			Claim: "the_old_fields_work_alone", Needs: exec, Run: checkOldFields, Source: "Command.output_files, output_directories; Bazel 4 to 6",
			Rule: "where 2.0 is advertised: clients of it send output_files and output_directories, and get files, trees and parents as well",
		},
		{
			Claim: "dot_dot_inside_the_root_is_legal_in_output_paths", Needs: exec, Run: checkDotDotOutput, Source: "BuildStream sends such paths",
			Rule: "an output path may leave the working directory by .., as long as it stays in the input root; it comes back as sent",
		},
		{
			Claim: "dot_dot_out_of_the_root_is_refused_in_output_paths", Needs: exec, Run: checkEscapingOutput, Source: "Command.output_paths: relative",
			Rule: "a path that leaves the input root, or is absolute, gets INVALID_ARGUMENT",
		},
		{
			Claim: "the_executable_bit_comes_back", Needs: exec, Run: checkExecutableBit, Source: "OutputFile.is_executable",
			Rule: "is_executable is true for files with an x bit and for no others, in trees too",
		},
		{
			Claim: "stdout_and_stderr_come_back", Needs: exec, Run: checkStdout, Source: "ActionResult.stdout_digest, stderr_digest",
			Rule: "both, apart, byte for byte, also when large and not UTF-8",
		},
		{
			Claim: "exit_codes_come_back", Needs: exec, Run: checkExitCodes, Source: "ActionResult.exit_code",
			Rule: "0 to 255 arrive as they are, and a failed command has its outputs all the same",
		},
		{
			Claim: "death_by_a_signal_is_no_success", Needs: exec, Run: checkSignal, Source: "ActionResult.exit_code; a shell says 128 + signal",
			Rule: "a command killed by a signal has an exit code other than 0",
		},
		{
			Claim: "symlinks_come_back_as_symlinks", Needs: exec, Run: checkSymlinks, Source: "ActionResult.output_symlinks, since 2.1",
			Rule: "links to files, directories and nothing are in output_symlinks with their target as written, and are not followed",
		},
		{
			Claim: "symlinks_come_back_in_the_old_lists_too", Needs: exec, Level: Should, Run: checkOldSymlinks, Source: "ActionResult.output_file_symlinks, output_directory_symlinks; Bazel 4",
			Rule: "requested by the old fields, links to files and to directories are in their deprecated lists",
		},
		{
			Claim: "absolute_symlinks_follow_the_advertised_strategy", Needs: exec, Run: checkAbsoluteSymlinks, Source: "SymlinkAbsolutePathStrategy",
			Rule: "ALLOWED: they come back as written; DISALLOWED: FAILED_PRECONDITION on output, INVALID_ARGUMENT on input",
		},
		{
			Claim: "symlinks_in_trees_are_kept", Needs: exec, Run: checkTreeSymlinks, Source: "SymlinkNode",
			Rule: "a link inside an output directory is a SymlinkNode with its target as written",
		},
		{
			Claim: "an_output_reached_through_an_escaping_symlink_is_not_collected", Needs: exec, Run: checkSymlinkEscape, Source: "security: outputs are files of the action",
			Rule: "a parent directory replaced by a link out of the input root yields no file of the machine",
		},
		{
			Claim: "inputs_can_be_outputs", Needs: exec, Run: checkInputAsOutput, Source: "Command.output_paths",
			Rule: "an output that was an input and was not touched comes back too; so does a directory with inputs in it",
		},
	}
}

func checkOutputFiles(ctx context.Context, t T, s *Subject) {
	c := s.Shell("echo small > a; : > empty; head -c 3000000 /dev/zero | tr '\\0' x > large", "a", "empty", "large")
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
	s.wantFile(ctx, t, result, "a", "small\n")
	s.wantFile(ctx, t, result, "empty", "")
	s.wantFile(ctx, t, result, "large", strings.Repeat("x", 3_000_000))
	if len(result.OutputFiles) != 3 {
		t.Errorf("the result has %d output files, want 3", len(result.OutputFiles))
	}
}

func checkOutputParents(ctx context.Context, t T, s *Subject) {
	c := s.Shell("test -d x/y && test ! -e x/y/z && test -d v && test ! -e v/w && echo > x/y/z && mkdir v/w && echo > v/w/f", "v/w", "x/y/z")
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
	s.wantFile(ctx, t, result, "x/y/z", "\n")
	s.wantTree(ctx, t, result, "v/w", map[string]string{"f": "\n"})
}

func checkMissingOutput(ctx context.Context, t T, s *Subject) {
	result := s.Result(ctx, t, s.ExecuteShell(ctx, t, "echo made > a", "a", "b", "c/d"), 0)
	s.wantFile(ctx, t, result, "a", "made\n")
	if n := len(result.OutputFiles) + len(result.OutputDirectories) + len(result.OutputSymlinks); n != 1 {
		t.Errorf("a command that made one of three outputs has %d in its result: %v", n, result)
	}
}

func checkUnlistedOutput(ctx context.Context, t T, s *Subject) {
	result := s.Result(ctx, t, s.ExecuteShell(ctx, t, "echo a > a; echo b > b; mkdir c; echo d > c/d", "a"), 0)
	if len(result.OutputFiles) != 1 || len(result.OutputDirectories) != 0 {
		t.Errorf("the result has %d files and %d directories, want the one file asked for", len(result.OutputFiles), len(result.OutputDirectories))
	}
}

func checkOldFieldsIgnored(ctx context.Context, t T, s *Subject) {
	c := s.Shell("echo a > a; echo b > b; mkdir d", "a")
	c.OutputFiles, c.OutputDirectories = []string{"b"}, []string{"d"}
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
	if file(result, "a") == nil || file(result, "b") != nil || directory(result, "d") != nil {
		t.Errorf("with output_paths [a], output_files [b], output_directories [d] the result is %v", result)
	}
}

func checkOldFields(ctx context.Context, t T, s *Subject) {
	s.speaks20(t)
	c := s.Shell("echo a > x/a; mkdir d; echo b > d/b")
	c.OutputFiles, c.OutputDirectories = []string{"x/a"}, []string{"d"}
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
	s.wantFile(ctx, t, result, "x/a", "a\n")
	s.wantTree(ctx, t, result, "d", map[string]string{"b": "b\n"})
}

// speaks20 skips the check unless the advertised API versions include 2.0.
func (s *Subject) speaks20(t T) {
	t.Helper()
	if earliest := s.earliest(); order(earliest, &semver.SemVer{Major: 2}) > 0 {
		t.Skipf("the server does not speak 2.0, its earliest version is %v", earliest)
	}
}

func checkDotDotOutput(ctx context.Context, t T, s *Subject) {
	c := s.Shell("echo up > ../up; echo side > ../../other/side", "../../other/side", "../up")
	c.WorkingDirectory = "a/b"
	root := s.Root(ctx, t, map[string]string{"a/b/in": "x"})
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, root), 0)
	s.wantFile(ctx, t, result, "../up", "up\n")
	s.wantFile(ctx, t, result, "../../other/side", "side\n")
}

func checkEscapingOutput(ctx context.Context, t T, s *Subject) {
	for _, name := range []string{"../out", "a/../../out", "/out", ".."} {
		if r := s.ExecuteShell(ctx, t, "true", name); r.Code() != codes.InvalidArgument {
			t.Errorf("output path %q ended with %s (%s), want InvalidArgument", name, r.Code(), r.Why())
		}
	}
}

func checkExecutableBit(ctx context.Context, t T, s *Subject) {
	script := "echo > a; chmod 644 a; echo > b; chmod 755 b; mkdir d; cp a d/a; cp b d/b; chmod 644 d/a; chmod 755 d/b"
	result := s.Result(ctx, t, s.ExecuteShell(ctx, t, script, "a", "b", "d"), 0)
	for _, f := range append(slices.Clone(result.OutputFiles), s.treeFiles(ctx, t, result, "d")...) {
		if want := strings.HasSuffix(f.Path, "b"); f.IsExecutable != want {
			t.Errorf("%s: is_executable is %v", f.Path, f.IsExecutable)
		}
	}
}

func checkStdout(ctx context.Context, t T, s *Subject) {
	c := s.Shell(`printf 'out\377\000'; printf 'err' >&2; head -c 2000000 /dev/zero`)
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
	if got, want := s.stdout(ctx, t, result), "out\xff\x00"+strings.Repeat("\x00", 2_000_000); got != want {
		t.Errorf("stdout has %d bytes, want %d", len(got), len(want))
	}
	if got := s.stderr(ctx, t, result); got != "err" {
		t.Errorf("stderr is %q, want \"err\"", got)
	}
	quiet := s.Result(ctx, t, s.ExecuteShell(ctx, t, "true"), 0)
	if out, errs := s.stdout(ctx, t, quiet), s.stderr(ctx, t, quiet); out != "" || errs != "" {
		t.Errorf("a silent command has stdout %q, stderr %q", out, errs)
	}
}

func checkExitCodes(ctx context.Context, t T, s *Subject) {
	for code, script := range map[int32]string{1: "exit 1", 42: "exit 42", 127: "exit 127", 255: "exit 255"} {
		s.Result(ctx, t, s.ExecuteShell(ctx, t, script), code)
	}
	result := s.Result(ctx, t, s.ExecuteShell(ctx, t, "echo kept > a; exit 7", "a"), 7)
	s.wantFile(ctx, t, result, "a", "kept\n")
}

func checkSignal(ctx context.Context, t T, s *Subject) {
	for _, signal := range []string{"KILL", "SEGV", "TERM"} {
		r := s.ExecuteShell(ctx, t, "kill -"+signal+" $$; sleep 5")
		if r.Code() == codes.OK && r.Response.GetResult().GetExitCode() == 0 {
			t.Errorf("a command killed by SIG%s passes for a success", signal)
		}
	}
}

// wantSymlinks fails unless the list holds exactly the links of want, path to target.
func wantSymlinks(t T, where string, links []*repb.OutputSymlink, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, l := range links {
		got[l.Path] = l.Target
	}
	for path, target := range want {
		if got[path] != target {
			t.Errorf("%s: %s links to %q, want %q", where, path, got[path], target)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: has %d links, want %d", where, len(got), len(want))
	}
}

func checkSymlinks(ctx context.Context, t T, s *Subject) {
	script := "echo x > f; mkdir d; echo y > d/g; ln -s f to-file; ln -s d to-dir; ln -s no/where dangling; mkdir e; ln -s ../d/../f e/far"
	result := s.Result(ctx, t, s.ExecuteShell(ctx, t, script, "to-file", "to-dir", "dangling", "e/far"), 0)
	wantSymlinks(t, "output_symlinks", result.OutputSymlinks,
		map[string]string{"to-file": "f", "to-dir": "d", "dangling": "no/where", "e/far": "../d/../f"})
	if len(result.OutputFiles)+len(result.OutputDirectories) != 0 {
		t.Errorf("links were followed: %v", result)
	}
}

func checkOldSymlinks(ctx context.Context, t T, s *Subject) {
	s.speaks20(t)
	c := s.Shell("echo x > f; mkdir d; ln -s f to-file; ln -s d to-dir")
	c.OutputFiles, c.OutputDirectories = []string{"to-file"}, []string{"to-dir"}
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
	wantSymlinks(t, "output_file_symlinks", result.OutputFileSymlinks, map[string]string{"to-file": "f"})
	wantSymlinks(t, "output_directory_symlinks", result.OutputDirectorySymlinks, map[string]string{"to-dir": "d"})
}

func checkAbsoluteSymlinks(ctx context.Context, t T, s *Subject) {
	out := s.ExecuteShell(ctx, t, "ln -s /etc/hostname l", "l")
	root := s.PutMessage(ctx, t, &repb.Directory{Symlinks: []*repb.SymlinkNode{{Name: "l", Target: "/etc/hostname"}}})
	in := s.runCommand(ctx, t, s.Shell("readlink l"), root)
	switch s.Capabilities.GetCacheCapabilities().GetSymlinkAbsolutePathStrategy() {
	case repb.SymlinkAbsolutePathStrategy_ALLOWED:
		wantSymlinks(t, "output_symlinks", s.Result(ctx, t, out, 0).OutputSymlinks, map[string]string{"l": "/etc/hostname"})
		if got := s.said(ctx, t, in); got != "/etc/hostname" {
			t.Errorf("an absolute input symlink points to %q", got)
		}
	case repb.SymlinkAbsolutePathStrategy_DISALLOWED:
		if out.Code() != codes.FailedPrecondition || in.Code() != codes.InvalidArgument {
			t.Errorf("absolute symlinks: output ended with %s, input with %s, want FailedPrecondition and InvalidArgument", out.Code(), in.Code())
		}
	default:
		t.Skipf("the server does not say how it treats absolute symlinks")
	}
}

func checkTreeSymlinks(ctx context.Context, t T, s *Subject) {
	result := s.Result(ctx, t, s.ExecuteShell(ctx, t, "mkdir -p d/e; echo > d/f; ln -s ../f d/e/l; ln -s nowhere d/n; ln -s e d/dir", "d"), 0)
	tree := s.treeOf(ctx, t, result, "d")
	targets := map[string]string{}
	for _, dir := range append(tree.Children, tree.Root) {
		for _, l := range dir.Symlinks {
			targets[l.Name] = l.Target
		}
	}
	if targets["l"] != "../f" || targets["n"] != "nowhere" || targets["dir"] != "e" || len(tree.Children) != 1 {
		t.Errorf("the tree has links %v and %d children, want l, n and dir as written and one child", targets, len(tree.Children))
	}
}

func checkSymlinkEscape(ctx context.Context, t T, s *Subject) {
	for _, script := range []string{
		"rm -rf d; ln -s /etc d", "rm -rf d; ln -s ../../../../../../../../../../etc d",
	} {
		r := s.ExecuteShell(ctx, t, script, "d/passwd", "d/hostname")
		if r.Code() == codes.OK && len(r.Response.GetResult().GetOutputFiles()) > 0 {
			t.Errorf("%s: the result has %v, files of the machine", script, r.Response.Result.OutputFiles)
		}
	}
}

func checkInputAsOutput(ctx context.Context, t T, s *Subject) {
	root := s.Root(ctx, t, map[string]string{"a": "as it was", "d/in": "one", "d/sub/in": "two"})
	result := s.Result(ctx, t, s.runCommand(ctx, t, s.Shell("echo three > d/new; rm -f d/sub/in", "a", "d"), root), 0)
	s.wantFile(ctx, t, result, "a", "as it was")
	s.wantTree(ctx, t, result, "d", map[string]string{"in": "one", "new": "three\n"})
}

// propertyChecks hold of node properties.
func propertyChecks() []Check {
	exec := []Feature{Execution}
	return []Check{
		{
			Claim: "advertised_node_properties_come_back_when_asked", Needs: exec, Run: checkNodeProperties, Source: "Command.output_node_properties; ExecutionCapabilities.supported_node_properties",
			Rule: "mtime and unix_mode are set on output files when advertised and asked for",
		},
		{
			Claim: "node_properties_stay_away_when_not_asked", Needs: exec, Run: checkNoNodeProperties, Source: "OutputFile.node_properties: if requested by the Action",
			Rule: "results do not depend on times or modes unless asked to",
		},
		{
			Claim: "an_unknown_node_property_is_INVALID_ARGUMENT", Needs: exec, Run: checkUnknownNodeProperty, Source: "Command.output_node_properties",
			Rule: "a property the server does not recognise is refused",
		},
		{
			Claim: "node_properties_of_inputs_are_honoured", Needs: exec, Level: Should, Run: checkInputProperties, Source: "FileNode.node_properties; BuildStream's artifacts",
			Rule: "an advertised mtime of an input file is what the command sees",
		},
	}
}

func (s *Subject) hasProperty(name string) bool {
	return slices.Contains(s.Capabilities.GetExecutionCapabilities().GetSupportedNodeProperties(), name)
}

func checkNodeProperties(ctx context.Context, t T, s *Subject) {
	var asked []string
	for _, name := range []string{"mtime", "unix_mode"} {
		if s.hasProperty(name) {
			asked = append(asked, name)
		}
	}
	if len(asked) == 0 {
		t.Skipf("the server advertises neither mtime nor unix_mode")
	}
	c := s.Shell("echo x > a; chmod 640 a; touch -t 200102030405.06 a; mkdir d; cp -p a d/b", "a", "d")
	environment(c, map[string]string{"TZ": "UTC0"})
	c.OutputNodeProperties = asked
	result := s.Result(ctx, t, s.runCommand(ctx, t, c, s.Empty()), 0)
	for _, f := range append(slices.Clone(result.OutputFiles), s.treeFiles(ctx, t, result, "d")...) {
		if s.hasProperty("mtime") && f.GetNodeProperties().GetMtime().GetSeconds() != 981173106 { // 2001-02-03 04:05:06 UTC
			t.Errorf("%s: mtime is %v, want 2001-02-03 04:05:06", f.Path, f.GetNodeProperties().GetMtime())
		}
		if s.hasProperty("unix_mode") && f.GetNodeProperties().GetUnixMode().GetValue()&0o777 != 0o640 {
			t.Errorf("%s: unix_mode is %o, want 640", f.Path, f.GetNodeProperties().GetUnixMode().GetValue())
		}
	}
}

func checkNoNodeProperties(ctx context.Context, t T, s *Subject) {
	result := s.Result(ctx, t, s.ExecuteShell(ctx, t, "echo x > a; mkdir d; echo y > d/b", "a", "d"), 0)
	for _, f := range append(slices.Clone(result.OutputFiles), s.treeFiles(ctx, t, result, "d")...) {
		if f.NodeProperties != nil && !proto.Equal(f.NodeProperties, &repb.NodeProperties{}) {
			t.Errorf("%s has node properties %v, unasked", f.Path, f.NodeProperties)
		}
	}
}

func checkUnknownNodeProperty(ctx context.Context, t T, s *Subject) {
	c := s.Shell("echo x > a", "a")
	c.OutputNodeProperties = []string{"conformance-unheard-of"}
	if r := s.runCommand(ctx, t, c, s.Empty()); r.Code() != codes.InvalidArgument {
		t.Errorf("an unknown node property ended with %s (%s), want InvalidArgument", r.Code(), r.Why())
	}
}

func checkInputProperties(ctx context.Context, t T, s *Subject) {
	if !s.hasProperty("mtime") {
		t.Skipf("the server does not advertise mtime")
	}
	d := s.Put(ctx, t, s.Blob(10))[0]
	// The first one is the newer one: a server that writes files in order and ignores their time makes the last the newest.
	root := s.PutMessage(ctx, t, &repb.Directory{Files: []*repb.FileNode{
		{Name: "f", Digest: d, NodeProperties: &repb.NodeProperties{Mtime: timestamp(981173107)}},
		{Name: "g", Digest: d, NodeProperties: &repb.NodeProperties{Mtime: timestamp(981173106)}},
	}})
	if got := s.said(ctx, t, s.runCommand(ctx, t, s.Shell("test f -nt g && test ! g -nt f && echo honoured"), root)); got != "honoured" {
		t.Errorf("two inputs a second apart are not seen so: %q", got)
	}
}
