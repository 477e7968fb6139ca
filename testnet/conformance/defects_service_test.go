package conformance

import "github.com/buildmesh/buildmesh/testnet/wrong"

// serviceDefects are the defects of the Remote Asset API and of log streams.
func serviceDefects() []caught {
	return []caught{
		{wrong.TransientWithoutRetry, "EveryCall", "a_transient_error_says_when_to_retry"},
		{wrong.FetchNoURIIsNotFound, "RemoteAsset", "fetching_without_URIs_is_INVALID_ARGUMENT"},
		{wrong.PushNoURIAccepted, "RemoteAsset", "pushing_without_URIs_is_INVALID_ARGUMENT"},
		{wrong.QualifierIgnored, "RemoteAsset", "an_unsupported_qualifier_is_INVALID_ARGUMENT_by_name"},
		{wrong.QualifierUnnamed, "RemoteAsset", "an_unsupported_qualifier_is_INVALID_ARGUMENT_by_name"},
		{wrong.QualifiersOrdered, "RemoteAsset", "the_standard_qualifiers_are_understood"},
		{wrong.UnknownAssetIsEmpty, "RemoteAsset", "an_unknown_asset_is_NOT_FOUND"},
		{wrong.PushFirstURIOnly, "RemoteAsset", "a_pushed_blob_is_fetched"},
		{wrong.DirectoriesAreBlobs, "RemoteAsset", "a_pushed_directory_is_fetched"},
		{wrong.PushKept, "RemoteAsset", "a_second_push_replaces_the_first"},
		{wrong.ExpiryIgnored, "RemoteAsset", "expire_at_is_honoured"},
		{wrong.OldestIgnored, "RemoteAsset", "oldest_content_accepted_is_honoured"},
		{wrong.ReferencesRefused, "RemoteAsset", "references_are_accepted"},
		{wrong.AssetFunctionUnsaid, "RemoteAsset", "assets_are_kept_in_every_function"},
		{wrong.FetchFirstURIOnly, "RemoteAsset", "an_http_URI_is_fetched"},
		{wrong.ChecksumIgnored, "RemoteAsset", "a_checksum_is_compared"},
		{wrong.UpstreamIsOurError, "RemoteAsset", "failures_upstream_stand_in_the_response"},
		{wrong.LogWriteNameGuessable, "LogStream", "a_log_stream_has_two_names"},
		{wrong.LogOffsetIgnored, "LogStream", "what_is_written_is_read"},
		{wrong.LogNotTailed, "LogStream", "a_reader_tails_until_the_stream_is_finalised"},
		{wrong.LogEndsWithCall, "LogStream", "a_log_stream_is_written_in_several_calls"},
		{wrong.LogWriteNameReadable, "LogStream", "the_write_name_cannot_be_read"},
		{wrong.LogPublicNameWritable, "LogStream", "the_public_name_cannot_be_written"},
		{wrong.LogFinalAppendable, "LogStream", "a_finalised_log_stream_cannot_be_appended_to"},
		{wrong.LogUnknownIsEmpty, "LogStream", "an_unknown_log_stream_is_NOT_FOUND"},
		{wrong.StdoutStreamUnreadable, "LogStream", "stdout_of_a_running_execution_can_be_read"},
		{wrong.StdoutStreamAtTheEnd, "LogStream", "stdout_of_a_running_execution_can_be_read"},
	}
}

// mistakeDefects are the defects that the commonly wrong servers have.
func mistakeDefects() []caught {
	var all []caught
	for claim, d := range map[string]wrong.Defect{
		"the_empty_blob_exists": wrong.EmptyBlobMissing, "do_not_cache_is_heeded": wrong.DoNotCacheIgnored,
		"GetTree_QueryWriteStatus_and_read_limit_exist": wrong.WriteStatusUnimplemented,
		"missing_blobs_are_reported_together":           wrong.OneMissingBlobAtATime,
		"a_lost_blob_is_not_NOT_FOUND":                  wrong.LostBlobIsNotFound,
		"a_hit_has_its_tree_children":                   wrong.HitWithAbsentTreeChildren,
		"the_batch_limit_is_a_number":                   wrong.BatchLimitZero,
		"output_directories_have_their_parents":         wrong.NoOutputParents,
		"a_second_attempt_has_its_own_directory":        wrong.SecondAttemptClobbers,
		"capabilities_do_not_overstate":                 wrong.OverstatedCompressor,
		"cancel_cancels":                                wrong.CancelIgnored,
		"committed_size_is_the_size":                    wrong.CommittedSizeWrong,
		"DIRECTORY_ONLY_is_heeded":                      wrong.DirectoryOnlyIgnored,
		"digests_are_not_inferred_by_length_alone":      wrong.DigestInferredByLength,
		"names_are_unique_across_the_lists":             wrong.DuplicateNamesAccepted,
	} {
		all = append(all, caught{d, "CommonlyWrong", claim})
	}
	return all
}
