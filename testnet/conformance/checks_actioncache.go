package conformance

import (
	"bytes"
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// actionCacheChecks hold of GetActionResult and UpdateActionResult.
func actionCacheChecks() []Check {
	read, both := []Feature{Cache}, []Feature{Cache, CacheUpdates}
	complete := "rpc GetActionResult; Bazel's --remote_download_minimal fails the build otherwise"
	return []Check{
		{
			Claim: "a_miss_is_NOT_FOUND", Needs: read, Run: checkMiss, Source: "rpc GetActionResult, Errors",
			Rule: "an action without a result gets NOT_FOUND, and not an empty result",
		},
		{
			Claim: "a_malformed_action_digest_is_INVALID_ARGUMENT", Needs: read, Run: checkResultMalformed, Source: "message Digest",
			Rule: "a digest that is none gets INVALID_ARGUMENT",
		},
		{
			Claim: "a_stored_result_comes_back", Needs: both, Run: checkResultStored, Source: "rpc UpdateActionResult",
			Rule: "files, directories, symlinks, digests and the exit code are what was stored; the answer to the update is equivalent too",
		},
		{
			Claim: "a_stored_result_can_be_replaced", Needs: both, Run: checkResultReplaced, Source: "rpc UpdateActionResult",
			Rule: "the last update is what is served",
		},
		{
			Claim: "results_are_kept_in_every_function", Needs: both, Run: checkResultFunctions, Source: "GetActionResultRequest.digest_function",
			Rule: "each advertised digest function has its results, and they do not answer for one another",
		},
		{
			Claim: "the_action_digest_includes_its_size", Needs: both, Run: checkResultSize, Source: "message Digest",
			Rule: "the right hash with another size is a miss",
		},
		{
			Claim: "a_hit_has_every_output_file", Needs: both, Run: checkHitFile, Source: complete,
			Rule: "a result that refers to an absent file is a miss (or its update is refused)",
		},
		{
			Claim: "a_hit_has_its_trees", Needs: both, Run: checkHitTree, Source: complete,
			Rule: "a result whose tree_digest or root_directory_digest is absent is a miss",
		},
		{
			Claim: "a_hit_has_every_child_of_its_trees", Needs: both, Run: checkHitTreeChild, Source: complete,
			Rule: "a result whose Tree refers to an absent file, in the root or in a child, is a miss",
		},
		{
			Claim: "a_hit_has_stdout_and_stderr", Needs: both, Run: checkHitStdout, Source: complete,
			Rule: "a result whose stdout_digest or stderr_digest is absent is a miss",
		},
		{
			Claim: "a_hit_becomes_complete_when_the_blob_arrives", Needs: both, Level: Should, Run: checkHitLater, Source: "rpc GetActionResult",
			Rule: "an accepted result that was a miss for an absent blob is a hit once the blob is there",
		},
		{
			Claim: "the_empty_blob_never_spoils_a_hit", Needs: both, Run: checkHitEmpty, Source: "service ContentAddressableStorage: empty blobs are always available",
			Rule: "results that refer to the empty file, to the tree of an empty directory and to empty stdout are complete",
		},
		{
			Claim: "stdout_is_inlined_only_when_asked", Needs: both, Level: Should, Run: checkInlineStdout, Source: "GetActionResultRequest.inline_stdout",
			Rule: "without the hint the raw fields are empty; with it they are the blob's bytes or empty, and the digest stays",
		},
		{
			Claim: "files_are_inlined_only_when_asked", Needs: both, Level: Should, Run: checkInlineFiles, Source: "GetActionResultRequest.inline_output_files",
			Rule: "contents is set for no file that was not asked for, and is the blob's bytes when set",
		},
		{
			Claim: "inlining_never_exceeds_the_message_limit", Needs: both, Run: checkInlineHuge, Source: "ActionResult.stdout_raw: MUST omit",
			Rule: "a hit with 6 MiB of stdout, asked inline, still fits a message of 4 MiB",
		},
		{
			Claim: "a_stored_result_is_never_empty", Needs: both, Level: Should, Run: checkResultNotEmpty, Source: "message ActionResult: advised non-default field",
			Rule: "a result of default values is served with some field set, such as execution_metadata.worker",
		},
	}
}

// sampleAction uploads an action nobody has seen, with its command, and gives its digest.
func (s *Subject) sampleAction(ctx context.Context, t T) *repb.Digest {
	t.Helper()
	command := s.PutMessage(ctx, t, &repb.Command{Arguments: []string{"true", string(s.Text(40))}})
	return s.PutMessage(ctx, t, &repb.Action{CommandDigest: command, InputRootDigest: s.Empty()})
}

func (s *Subject) update(ctx context.Context, action *repb.Digest, r *repb.ActionResult) (*repb.ActionResult, error) {
	return s.Cache.UpdateActionResult(ctx, &repb.UpdateActionResultRequest{
		InstanceName: s.Instance, ActionDigest: action, ActionResult: r, DigestFunction: s.Function.Proto(),
	})
}

func (s *Subject) lookup(ctx context.Context, action *repb.Digest) (*repb.ActionResult, error) {
	return s.Cache.GetActionResult(ctx, &repb.GetActionResultRequest{
		InstanceName: s.Instance, ActionDigest: action, DigestFunction: s.Function.Proto(),
	})
}

// store uploads a result that must be accepted.
func (s *Subject) store(ctx context.Context, t T, r *repb.ActionResult) *repb.Digest {
	t.Helper()
	action := s.sampleAction(ctx, t)
	if _, err := s.update(ctx, action, r); err != nil {
		t.Fatalf("UpdateActionResult: %v", err)
	}
	return action
}

func checkMiss(ctx context.Context, t T, s *Subject) {
	_, err := s.lookup(ctx, s.Unseen())
	wantCode(t, err, "GetActionResult of an unknown action", codes.NotFound)
	_, err = s.lookup(ctx, s.sampleAction(ctx, t))
	wantCode(t, err, "GetActionResult of an action that is in the CAS but never ran", codes.NotFound)
}

func checkResultMalformed(ctx context.Context, t T, s *Subject) {
	for what, d := range malformed(s.Unseen()) {
		_, err := s.lookup(ctx, d)
		wantCode(t, err, "GetActionResult of an action digest with "+what, codes.InvalidArgument)
	}
	_, err := s.lookup(ctx, nil)
	wantCode(t, err, "GetActionResult without an action digest", codes.InvalidArgument)
}

func checkResultStored(ctx context.Context, t T, s *Subject) {
	ds := s.Put(ctx, t, s.Blob(10), s.Blob(2000), s.Blob(20))
	tree := s.PutMessage(ctx, t, &repb.Tree{Root: &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: ds[0]}}}})
	want := &repb.ActionResult{
		OutputFiles:       []*repb.OutputFile{{Path: "a/b", Digest: ds[0], IsExecutable: true}, {Path: "c", Digest: ds[1]}},
		OutputDirectories: []*repb.OutputDirectory{{Path: "d", TreeDigest: tree}},
		OutputSymlinks:    []*repb.OutputSymlink{{Path: "l", Target: "../x"}},
		StdoutDigest:      ds[2], StderrDigest: ds[1],
		ExecutionMetadata: &repb.ExecutedActionMetadata{Worker: "conformance"},
	}
	action := s.sampleAction(ctx, t)
	answered, err := s.update(ctx, action, want)
	if err != nil {
		t.Fatalf("UpdateActionResult: %v", err)
	}
	wantSameResult(t, "the answer of UpdateActionResult", answered, want)
	got, err := s.lookup(ctx, action)
	if err != nil {
		t.Fatalf("GetActionResult after UpdateActionResult: %v", err)
	}
	wantSameResult(t, "GetActionResult", got, want)
}

// wantSameResult compares what a server may not change.
func wantSameResult(t T, where string, got, want *repb.ActionResult) {
	t.Helper()
	bare := func(r *repb.ActionResult) *repb.ActionResult {
		return &repb.ActionResult{
			OutputFiles: r.GetOutputFiles(), OutputDirectories: r.GetOutputDirectories(), OutputSymlinks: r.GetOutputSymlinks(),
			ExitCode: r.GetExitCode(), StdoutDigest: r.GetStdoutDigest(), StderrDigest: r.GetStderrDigest(),
		}
	}
	if !proto.Equal(bare(got), bare(want)) {
		t.Errorf("%s is %v, want %v", where, bare(got), bare(want))
	}
}

func checkResultReplaced(ctx context.Context, t T, s *Subject) {
	ds := s.Put(ctx, t, s.Blob(10), s.Blob(10))
	action := s.sampleAction(ctx, t)
	for _, d := range ds {
		if _, err := s.update(ctx, action, &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "f", Digest: d}}}); err != nil {
			t.Fatalf("UpdateActionResult: %v", err)
		}
		got, err := s.lookup(ctx, action)
		if err != nil || len(got.OutputFiles) != 1 || !proto.Equal(got.OutputFiles[0].Digest, d) {
			t.Errorf("GetActionResult after an update: %v, %v, want the file %s", got, err, show(d))
		}
	}
}

func checkResultFunctions(ctx context.Context, t T, s *Subject) {
	for _, f := range s.Functions() {
		s := s.With(f)
		action := s.store(ctx, t, &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "f", Digest: s.Put(ctx, t, s.Blob(9))[0]}}})
		if _, err := s.lookup(ctx, action); err != nil {
			t.Errorf("%s: GetActionResult after UpdateActionResult: %v", f, err)
		}
		if f != BLAKE3 {
			continue
		}
		if _, err := s.With(SHA256).lookup(ctx, action); err == nil && s.advertises(repb.DigestFunction_SHA256) {
			t.Errorf("a result of BLAKE3 answers for the same digits in SHA256")
		}
	}
}

func checkResultSize(ctx context.Context, t T, s *Subject) {
	action := s.store(ctx, t, &repb.ActionResult{StdoutDigest: s.Put(ctx, t, s.Blob(9))[0]})
	_, err := s.lookup(ctx, &repb.Digest{Hash: action.Hash, SizeBytes: action.SizeBytes + 1})
	wantCode(t, err, "GetActionResult with the right hash and another size", codes.NotFound, codes.InvalidArgument)
}

// wantIncomplete stores a result that refers to an absent blob and wants no hit.
func wantIncomplete(ctx context.Context, t T, s *Subject, what string, r *repb.ActionResult) {
	t.Helper()
	action := s.sampleAction(ctx, t)
	if _, err := s.update(ctx, action, r); err != nil {
		wantRefused(t, err, "UpdateActionResult with "+what) // refusing is one way to keep the promise
		return
	}
	_, err := s.lookup(ctx, action)
	wantCode(t, err, "GetActionResult of a result with "+what, codes.NotFound)
}

func checkHitFile(ctx context.Context, t T, s *Subject) {
	have := s.Put(ctx, t, s.Blob(10))[0]
	wantIncomplete(ctx, t, s, "an absent output file", &repb.ActionResult{
		OutputFiles: []*repb.OutputFile{{Path: "a", Digest: have}, {Path: "b", Digest: s.Unseen()}},
	})
}

func checkHitTree(ctx context.Context, t T, s *Subject) {
	wantIncomplete(ctx, t, s, "an absent tree", &repb.ActionResult{
		OutputDirectories: []*repb.OutputDirectory{{Path: "d", TreeDigest: s.Unseen()}},
	})
	wantIncomplete(ctx, t, s, "an absent root directory", &repb.ActionResult{
		OutputDirectories: []*repb.OutputDirectory{{Path: "d", RootDirectoryDigest: s.Unseen()}},
	})
}

func checkHitTreeChild(ctx context.Context, t T, s *Subject) {
	have := s.Put(ctx, t, s.Blob(10))[0]
	inRoot := &repb.Tree{Root: &repb.Directory{Files: []*repb.FileNode{{Name: "a", Digest: have}, {Name: "b", Digest: s.Unseen()}}}}
	child := &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: s.Unseen()}}}
	parent := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "c", Digest: s.Digest(wire(t, child))}}}
	below := &repb.Tree{Root: parent, Children: []*repb.Directory{child}}
	for what, tree := range map[string]*repb.Tree{"a tree whose root has an absent file": inRoot, "a tree whose child has an absent file": below} {
		wantIncomplete(ctx, t, s, what, &repb.ActionResult{
			OutputDirectories: []*repb.OutputDirectory{{Path: "d", TreeDigest: s.PutMessage(ctx, t, tree)}},
		})
	}
	s.PutMessage(ctx, t, child)
	wantIncomplete(ctx, t, s, "a root directory whose child has an absent file", &repb.ActionResult{
		OutputDirectories: []*repb.OutputDirectory{{Path: "d", RootDirectoryDigest: s.PutMessage(ctx, t, parent)}},
	})
}

func checkHitStdout(ctx context.Context, t T, s *Subject) {
	wantIncomplete(ctx, t, s, "absent stdout", &repb.ActionResult{StdoutDigest: s.Unseen()})
	wantIncomplete(ctx, t, s, "absent stderr", &repb.ActionResult{StderrDigest: s.Unseen()})
}

func checkHitLater(ctx context.Context, t T, s *Subject) {
	data := s.Blob(100)
	action := s.sampleAction(ctx, t)
	if _, err := s.update(ctx, action, &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "a", Digest: s.Digest(data)}}}); err != nil {
		t.Skipf("the server refuses results with absent files: %v", err)
	}
	if _, err := s.lookup(ctx, action); status.Code(err) != codes.NotFound {
		t.Errorf("GetActionResult before the file is there: %v, want NotFound", err)
	}
	s.Put(ctx, t, data)
	if _, err := s.lookup(ctx, action); err != nil {
		t.Errorf("GetActionResult once the file is there: %v", err)
	}
}

func checkHitEmpty(ctx context.Context, t T, s *Subject) {
	emptyTree := s.PutMessage(ctx, t, &repb.Tree{Root: &repb.Directory{}})
	action := s.store(ctx, t, &repb.ActionResult{
		OutputFiles:       []*repb.OutputFile{{Path: "f", Digest: s.Empty()}},
		OutputDirectories: []*repb.OutputDirectory{{Path: "d", TreeDigest: emptyTree}, {Path: "e", RootDirectoryDigest: s.Empty()}},
		StdoutDigest:      s.Empty(), StderrDigest: s.Empty(),
	})
	if _, err := s.lookup(ctx, action); err != nil {
		t.Errorf("GetActionResult of a result that refers to empty blobs alone: %v", err)
	}
}

func checkInlineStdout(ctx context.Context, t T, s *Subject) {
	out, errs := s.Blob(100), s.Blob(100)
	ds := s.Put(ctx, t, out, errs)
	action := s.store(ctx, t, &repb.ActionResult{StdoutDigest: ds[0], StderrDigest: ds[1]})
	for _, ask := range []bool{false, true} {
		got, err := s.Cache.GetActionResult(ctx, &repb.GetActionResultRequest{
			InstanceName: s.Instance, ActionDigest: action, InlineStdout: ask, InlineStderr: ask, DigestFunction: s.Function.Proto(),
		})
		if err != nil {
			t.Fatalf("GetActionResult with inlining %v: %v", ask, err)
		}
		if len(got.StdoutRaw)+len(got.StderrRaw) > 0 && !ask {
			t.Errorf("GetActionResult inlines %d and %d bytes, unasked", len(got.StdoutRaw), len(got.StderrRaw))
		}
		if len(got.StdoutRaw) > 0 && !bytes.Equal(got.StdoutRaw, out) || len(got.StderrRaw) > 0 && !bytes.Equal(got.StderrRaw, errs) {
			t.Errorf("GetActionResult inlines other bytes than the digests name")
		}
		if !proto.Equal(got.StdoutDigest, ds[0]) || !proto.Equal(got.StderrDigest, ds[1]) {
			t.Errorf("GetActionResult with inlining %v loses the digests: %v", ask, got)
		}
	}
}

func checkInlineFiles(ctx context.Context, t T, s *Subject) {
	blobs := [][]byte{s.Blob(100), s.Blob(100)}
	ds := s.Put(ctx, t, blobs...)
	action := s.store(ctx, t, &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "a", Digest: ds[0]}, {Path: "b", Digest: ds[1]}}})
	got, err := s.Cache.GetActionResult(ctx, &repb.GetActionResultRequest{
		InstanceName: s.Instance, ActionDigest: action, InlineOutputFiles: []string{"b"}, DigestFunction: s.Function.Proto(),
	})
	if err != nil || len(got.OutputFiles) != 2 {
		t.Fatalf("GetActionResult with inline_output_files: %v, %v", got, err)
	}
	for i, f := range got.OutputFiles {
		if len(f.Contents) > 0 && f.Path != "b" {
			t.Errorf("GetActionResult inlines file %s, unasked", f.Path)
		}
		if len(f.Contents) > 0 && !bytes.Equal(f.Contents, blobs[i]) {
			t.Errorf("GetActionResult inlines other bytes into %s than its digest names", f.Path)
		}
	}
}

func checkInlineHuge(ctx context.Context, t T, s *Subject) {
	d := s.Put(ctx, t, s.Blob(6<<20))[0]
	action := s.store(ctx, t, &repb.ActionResult{StdoutDigest: d, OutputFiles: []*repb.OutputFile{{Path: "a", Digest: d}}})
	got, err := s.Cache.GetActionResult(ctx, &repb.GetActionResultRequest{
		InstanceName: s.Instance, ActionDigest: action, InlineStdout: true, InlineOutputFiles: []string{"a"}, DigestFunction: s.Function.Proto(),
	})
	if err != nil || !proto.Equal(got.StdoutDigest, d) {
		t.Errorf("GetActionResult with 6 MiB of stdout to inline: %v, digest %v", err, got.GetStdoutDigest())
	}
}

func checkResultNotEmpty(ctx context.Context, t T, s *Subject) {
	action := s.store(ctx, t, &repb.ActionResult{})
	if got, err := s.lookup(ctx, action); err != nil || proto.Size(got) == 0 {
		t.Errorf("GetActionResult of a result of default values: %d bytes, %v, want some field set", proto.Size(got), err)
	}
}
