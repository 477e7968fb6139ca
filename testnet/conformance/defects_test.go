package conformance

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/testnet/wrong"
)

// caught says which check has to fail for a defect.
type caught struct {
	defect         wrong.Defect
	section, claim string
}

// storageDefects are the defects of digests, names, the CAS and ByteStream.
func storageDefects() []caught {
	return []caught{
		{wrong.EmptyBlobMissing, "EveryCall", "the_empty_blob_is_never_missing"},
		{wrong.EmptyBlobMissing, "EveryCall", "the_empty_blob_reads_in_a_batch"},
		{wrong.EmptyBlobMissing, "EveryCall", "the_empty_blob_reads_and_writes_by_ByteStream"},
		{wrong.EmptyBlobMissing, "EveryCall", "the_empty_blob_reads_compressed"},
		{wrong.EmptyBlobMissing, "EveryCall", "the_empty_directory_is_a_tree"},
		{wrong.EmptyBlobMissing, "ActionCache", "the_empty_blob_never_spoils_a_hit"},
		{wrong.WrongSizeAccepted, "EveryCall", "a_digest_is_hash_and_size"},
		{wrong.UppercaseAccepted, "EveryCall", "a_hash_is_lowercase_hex_of_full_length"},
		{wrong.ShortHashAccepted, "EveryCall", "a_hash_is_lowercase_hex_of_full_length"},
		{wrong.ReservedInstanceAccepted, "EveryCall", "instance_names_have_no_reserved_segment"},
		{wrong.OneSegmentInstances, "EveryCall", "instance_names_may_have_several_segments"},
		{wrong.MetadataRequired, "EveryCall", "request_metadata_that_is_garbage_is_tolerated"},
		{wrong.MetadataRefused, "EveryCall", "request_metadata_is_accepted"},
		{wrong.DigestInferredByLength, "DigestFunctions", "BLAKE3_is_never_inferred"},
		{wrong.FunctionRequired, "DigestFunctions", "an_unset_function_is_inferred_from_the_hash_length"},
		{wrong.ForeignFunctionAccepted, "DigestFunctions", "a_function_that_is_not_advertised_is_refused"},
		{wrong.FunctionSegmentRefused, "DigestFunctions", "every_advertised_function_stores_and_reads"},
		{wrong.FunctionSegmentRefused, "ResourceNames", "BLAKE3_has_a_segment_of_its_own"},
		{wrong.TrailingNameRefused, "ResourceNames", "a_write_name_may_go_on_with_anything"},
		{wrong.TrailingNameRefused, "ResourceNames", "a_compressed_write_is_uploads_uuid_compressed_blobs"},
		{wrong.TrailingReadAccepted, "ResourceNames", "a_read_name_ends_with_the_size"},
		{wrong.IdentitySegmentAccepted, "ResourceNames", "identity_is_no_compressor_segment"},
		{wrong.UnknownCompressorPlain, "ResourceNames", "an_unknown_compressor_is_refused"},
		{wrong.MalformedNameIsInternal, "ResourceNames", "malformed_names_are_refused"},
		{wrong.UploadsKeyedByUUID, "ResourceNames", "a_uuid_may_repeat_for_different_blobs"},
		{wrong.UnfinishedNameRefused, "ResourceNames", "a_write_is_uploads_uuid_blobs_hash_size"},
		{wrong.MissingListsOne, "CAS", "FindMissingBlobs_lists_exactly_the_absent"},
		{wrong.MissingListsOne, "CAS", "FindMissingBlobs_takes_thousands_of_digests"},
		{wrong.FoundIsGone, "CAS", "FindMissingBlobs_extends_lifetimes_so_that_what_it_found_can_be_read"},
		{wrong.UnverifiedBatch, "CAS", "a_batch_upload_is_verified"},
		{wrong.BatchFailsTogether, "CAS", "uploads_of_a_batch_are_independent"},
		{wrong.BatchAnswersNewAlone, "CAS", "a_batch_upload_answers_for_each_item"},
		{wrong.BatchReadFailsTogether, "CAS", "reads_of_a_batch_are_independent"},
		{wrong.BatchLimitZero, "CAS", "the_batch_limit_is_not_0"},
		{wrong.BatchLimitOverstated, "CAS", "the_batch_limit_is_true"},
		{wrong.BatchLimitIgnored, "CAS", "a_batch_over_the_limit_is_refused_as_a_whole"},
		{wrong.ItemCompressorIgnored, "CAS", "each_item_of_a_batch_has_its_own_compressor"},
		{wrong.ItemCompressorIgnored, "CAS", "a_compressed_item_is_verified"},
		{wrong.UnknownCompressorPlain, "CAS", "an_item_compressor_that_is_not_advertised_is_refused"},
		{wrong.UnaskedCompression, "CAS", "a_batch_read_uses_acceptable_compressors_only"},
		{wrong.OversizeAccepted, "CAS", "a_blob_over_the_size_limit_is_refused"},
		{wrong.GetTreeRootOnly, "GetTree", "GetTree_gives_every_directory"},
		{wrong.GetTreeRootOnly, "GetTree", "GetTree_works_in_every_function"},
		{wrong.GetTreeMissingRootIsEmpty, "GetTree", "GetTree_is_NOT_FOUND_for_an_absent_root_alone"},
		{wrong.GetTreeHoleFails, "GetTree", "GetTree_leaves_absent_subtrees_out"},
		{wrong.GetTreeUnpaged, "GetTree", "GetTree_honours_page_size"},
		{wrong.GetTreeTokenIgnored, "GetTree", "GetTree_continues_from_a_page_token"},
		{wrong.GetTreeTokenIgnored, "GetTree", "GetTree_refuses_a_foreign_page_token"},
		{wrong.FastCDCOutOfRange, "SplitSplice", "FastCDC_parameters_are_within_range"},
		{wrong.SplitShuffled, "SplitSplice", "split_chunks_concatenate_to_the_blob"},
		{wrong.SplitChunksNotStored, "SplitSplice", "split_chunks_concatenate_to_the_blob"},
		{wrong.SplitOtherCuts, "SplitSplice", "FastCDC_chunks_are_cut_where_FastCDC_2020_cuts"},
		{wrong.SplitFixedSize, "SplitSplice", "a_split_is_stable_under_insertion"},
		{wrong.SplitAbsentIsEmpty, "SplitSplice", "splitting_an_absent_blob_is_NOT_FOUND"},
		{wrong.SpliceForgets, "SplitSplice", "a_splice_makes_the_blob"},
		{wrong.SpliceForgets, "SplitSplice", "a_splice_of_small_chunks_and_repetitions"},
		{wrong.SpliceUnverified, "SplitSplice", "a_splice_is_verified"},
		{wrong.SpliceAbsentIsInternal, "SplitSplice", "a_splice_with_an_absent_chunk_is_NOT_FOUND"},
	}
}

// streamDefects are the defects of ByteStream and of compression.
func streamDefects() []caught {
	return []caught{
		{wrong.ReadUnsplit, "ByteStreamRead", "a_read_gives_the_whole_blob"},
		{wrong.ReadOffsetIgnored, "ByteStreamRead", "a_read_starts_at_its_offset"},
		{wrong.ReadLimitIgnored, "ByteStreamRead", "a_read_ends_at_its_limit"},
		{wrong.NegativeOffsetIsZero, "ByteStreamRead", "a_negative_offset_is_OUT_OF_RANGE"},
		{wrong.ReadBeyondIsEmpty, "ByteStreamRead", "an_offset_beyond_the_size_is_OUT_OF_RANGE"},
		{wrong.NegativeLimitIgnored, "ByteStreamRead", "a_negative_limit_is_INVALID_ARGUMENT"},
		{wrong.AbsentReadIsEmpty, "ByteStreamRead", "an_absent_blob_is_NOT_FOUND"},
		{wrong.CommittedSizeWrong, "ByteStreamWrite", "a_write_commits_its_size"},
		{wrong.WriteNameIgnored, "ByteStreamWrite", "a_write_names_its_resource_once"},
		{wrong.WriteOffsetIgnored, "ByteStreamWrite", "a_write_starts_at_the_committed_size"},
		{wrong.WriteOffsetIgnored, "ByteStreamWrite", "a_write_has_no_gaps"},
		{wrong.FinishWriteIgnored, "ByteStreamWrite", "nothing_follows_finish_write"},
		{wrong.UnverifiedWrite, "ByteStreamWrite", "a_write_of_other_bytes_is_INVALID_ARGUMENT"},
		{wrong.MismatchIsInternal, "ByteStreamWrite", "a_write_of_other_bytes_is_INVALID_ARGUMENT"},
		{wrong.UnfinishedVisible, "ByteStreamWrite", "a_write_without_finish_write_stores_nothing"},
		{wrong.KnownBlobReadToEnd, "ByteStreamWrite", "a_write_of_a_known_blob_finishes_at_once"},
		{wrong.KnownBlobRefused, "ByteStreamWrite", "a_write_of_a_known_blob_finishes_at_once"},
		{wrong.OvertakenRefused, "ByteStreamWrite", "a_write_that_another_upload_overtakes_succeeds"},
		{wrong.OneUploadAtATime, "ByteStreamWrite", "concurrent_writes_of_one_blob_all_succeed"},
		{wrong.WriteStatusAlwaysComplete, "ByteStreamWrite", "QueryWriteStatus_of_a_new_upload_is_0"},
		{wrong.WriteStatusAlwaysComplete, "ByteStreamWrite", "QueryWriteStatus_works_during_an_upload"},
		{wrong.WriteStatusForgets, "ByteStreamWrite", "QueryWriteStatus_of_a_finished_upload_is_complete"},
		{wrong.ResumeRefused, "ByteStreamWrite", "a_write_resumes_where_QueryWriteStatus_says"},
		{wrong.PartialForgotten, "ByteStreamWrite", "a_broken_upload_keeps_what_arrived"},
		{wrong.CompressedReadPlain, "Compression", "a_compressed_read_decodes_to_the_blob"},
		{wrong.CompressedOffsetPacked, "Compression", "a_compressed_read_offset_counts_uncompressed_bytes"},
		{wrong.CompressedLimitAccepted, "Compression", "a_compressed_read_has_no_limit"},
		{wrong.AbsentReadIsEmpty, "Compression", "a_compressed_read_of_an_absent_blob_is_NOT_FOUND"},
		{wrong.ReadBeyondIsEmpty, "Compression", "a_compressed_read_beyond_the_size_is_OUT_OF_RANGE"},
		{wrong.CompressedCommittedSize, "Compression", "a_compressed_write_stores_the_plain_blob"},
		{wrong.CompressedKnownSize, "Compression", "a_compressed_write_of_a_known_blob_commits_minus_1"},
		{wrong.OneFrameOnly, "Compression", "a_compressed_write_of_several_frames_is_taken"},
		{wrong.UnverifiedCompressed, "Compression", "a_compressed_write_of_other_bytes_is_INVALID_ARGUMENT"},
		{wrong.TruncatedFrameAccepted, "Compression", "a_truncated_frame_is_INVALID_ARGUMENT"},
		{wrong.ExcessIgnored, "Compression", "a_decompression_bomb_is_INVALID_ARGUMENT"},
		{wrong.OverstatedDeflate, "Compression", "advertised_deflate_works"},
		{wrong.GarbageIsPlain, "Compression", "bytes_that_are_no_zstd_are_INVALID_ARGUMENT"},
	}
}

// resultDefects are the defects of capabilities and of the action cache.
func resultDefects() []caught {
	return []caught{
		{wrong.CapabilitiesEmpty, "Capabilities", "an_endpoint_serves_a_cache_or_executes"},
		{wrong.FunctionsRepeated, "Capabilities", "the_cache_lists_its_digest_functions"},
		{wrong.FunctionsUnset, "Capabilities", "execution_sets_digest_function_and_digest_functions"},
		{wrong.ExecutionFunctionsBeyond, "Capabilities", "execution_functions_are_functions_of_the_cache"},
		{wrong.VersionsUnset, "Capabilities", "the_API_range_includes_2_0"},
		{wrong.PrioritiesUnset, "Capabilities", "priorities_are_a_real_range"},
		{wrong.StrategyUnset, "Capabilities", "the_symlink_strategy_is_said"},
		{wrong.OverstatedCompressor, "Capabilities", "nothing_is_advertised_that_does_not_work"},
		{wrong.OverstatedSplice, "Capabilities", "nothing_is_advertised_that_does_not_work"},
		{wrong.GetTreeUnimplemented, "Capabilities", "GetTree_QueryWriteStatus_and_read_limit_are_implemented"},
		{wrong.WriteStatusUnimplemented, "Capabilities", "GetTree_QueryWriteStatus_and_read_limit_are_implemented"},
		{wrong.ReadLimitIgnored, "Capabilities", "GetTree_QueryWriteStatus_and_read_limit_are_implemented"},
		{wrong.MissIsEmpty, "ActionCache", "a_miss_is_NOT_FOUND"},
		{wrong.UppercaseAccepted, "ActionCache", "a_malformed_action_digest_is_INVALID_ARGUMENT"},
		{wrong.ResultStripped, "ActionCache", "a_stored_result_comes_back"},
		{wrong.ResultKept, "ActionCache", "a_stored_result_can_be_replaced"},
		{wrong.ResultFunctionIgnored, "ActionCache", "results_are_kept_in_every_function"},
		{wrong.ResultSizeIgnored, "ActionCache", "the_action_digest_includes_its_size"},
		{wrong.HitWithAbsentFile, "ActionCache", "a_hit_has_every_output_file"},
		{wrong.HitWithAbsentTree, "ActionCache", "a_hit_has_its_trees"},
		{wrong.HitWithAbsentTreeChildren, "ActionCache", "a_hit_has_every_child_of_its_trees"},
		{wrong.HitWithAbsentStdout, "ActionCache", "a_hit_has_stdout_and_stderr"},
		{wrong.IncompleteIsForgotten, "ActionCache", "a_hit_becomes_complete_when_the_blob_arrives"},
		{wrong.InlinedUnasked, "ActionCache", "stdout_is_inlined_only_when_asked"},
		{wrong.InlinedUnasked, "ActionCache", "files_are_inlined_only_when_asked"},
		{wrong.InlinedWithoutBound, "ActionCache", "inlining_never_exceeds_the_message_limit"},
		{wrong.ResultServedEmpty, "ActionCache", "a_stored_result_is_never_empty"},
	}
}

func allCaught() []caught {
	var all []caught
	for _, part := range [][]caught{
		storageDefects(), streamDefects(), resultDefects(), executionDefects(), policyDefects(), commandDefects(), outputDefects(),
		serviceDefects(), mistakeDefects(),
	} {
		all = append(all, part...)
	}
	return all
}

// TestDefectsAreCaught switches one defect of the in-memory server on at a time and runs the check
// that has to fail. The subtest is named after the defect and the claim.
func TestDefectsAreCaught(t *testing.T) {
	onlyInMemory(t)
	for _, c := range allCaught() {
		t.Run(string(c.defect)+"/"+c.claim, func(t *testing.T) {
			t.Parallel()
			check, found := Find(c.section, c.claim)
			if !found {
				t.Fatalf("there is no check %s/%s", c.section, c.claim)
			}
			r := Record(t.Context(), check, connect(t, c.defect))
			if r.Outcome != Failed {
				t.Errorf("the check does not fail (outcome %d: %s)", r.Outcome, r)
			}
			t.Logf("caught: %s", r)
		})
	}
}

// connect starts an in-memory server with a defect and connects to it.
func connect(t *testing.T, d wrong.Defect) *Subject {
	t.Helper()
	target, stop, err := wrong.Start(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(t.Context(), defaultPatience)
	defer cancel()
	s, err := Connect(ctx, Options{Endpoint: target, Require: Features(), KeepAlive: time.Second, Patience: 12 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the test is over
	return s
}

func onlyInMemory(t *testing.T) {
	t.Helper()
	if *endpoint != "" || *unix != "" {
		t.Skip("a server is being examined; this test is about the suite itself")
	}
}

// TestEveryDefectAndEveryCheckIsTried reads the declarations of package wrong: a defect that no
// check is shown to catch, or a check that is never shown to fail, is worth nothing.
func TestEveryDefectAndEveryCheckIsTried(t *testing.T) {
	onlyInMemory(t)
	tried, failing := map[string]bool{}, map[string]bool{}
	for _, c := range allCaught() {
		tried[string(c.defect)] = true
		failing[c.section+"/"+c.claim] = true
	}
	declared := declaredDefects(t)
	for name, what := range declared {
		if what != "" && !tried[what] {
			t.Errorf("no check is shown to catch %s: %s", name, what)
		}
	}
	if len(declared) < 45 {
		t.Errorf("package wrong declares %d defects, want 45 at least", len(declared))
	}
	for _, sec := range Sections() {
		for _, c := range sec.Checks {
			if !failing[sec.Name+"/"+c.Claim] {
				t.Errorf("%s/%s is never shown to fail", sec.Name, c.Claim)
			}
		}
	}
}

// declaredDefects are the constants of type Defect, by name.
func declaredDefects(t *testing.T) map[string]string {
	t.Helper()
	declared := map[string]string{}
	for _, name := range []string{"../wrong/defect.go", "../wrong/defect_execution.go", "../wrong/defect_service.go"} {
		declaredIn(t, name, declared)
	}
	return declared
}

func declaredIn(t *testing.T, name string, declared map[string]string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
			what, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			declared[spec.Names[0].Name] = what
		}
		return true
	})
}
