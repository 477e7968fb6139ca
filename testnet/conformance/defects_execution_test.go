package conformance

import "github.com/buildmesh/buildmesh/testnet/wrong"

// executionDefects are the defects of executions, their streams and operations.
func executionDefects() []caught {
	return []caught{
		{wrong.LostBlobIsNotFound, "MissingBlobs", "an_absent_action_is_FAILED_PRECONDITION"},
		{wrong.LostBlobIsNotFound, "MissingBlobs", "an_absent_command_is_FAILED_PRECONDITION"},
		{wrong.MissingWithoutDetails, "MissingBlobs", "an_absent_command_is_FAILED_PRECONDITION"},
		{wrong.OneMissingBlobAtATime, "MissingBlobs", "every_absent_input_is_named_at_once"},
		{wrong.SubjectWithInstance, "MissingBlobs", "a_violation_names_its_blob_without_instance"},
		{wrong.MissingRemembered, "MissingBlobs", "an_execution_works_once_the_missing_is_uploaded"},
		{wrong.MalformedActionRuns, "MissingBlobs", "a_malformed_action_is_refused"},
		{wrong.UppercaseAccepted, "MissingBlobs", "a_malformed_action_digest_is_refused"},
		{wrong.FirstOperationLate, "OperationStream", "the_first_operation_comes_at_once"},
		{wrong.StagesBackwards, "OperationStream", "stages_come_in_order"},
		{wrong.DoneTooSoon, "OperationStream", "done_is_COMPLETED_and_the_end"},
		{wrong.StreamStaysOpen, "OperationStream", "done_is_COMPLETED_and_the_end"},
		{wrong.NamesChange, "OperationStream", "one_execution_is_one_operation"},
		{wrong.FailureIsError, "OperationStream", "a_failing_command_is_no_error"},
		{wrong.ErrorInOperation, "OperationStream", "Operation_error_is_never_set"},
		{wrong.WaitSaysNothingNow, "OperationStream", "WaitExecution_gives_the_state_at_once_and_then_the_rest"},
		{wrong.WaitStopsAtOnce, "OperationStream", "WaitExecution_gives_the_state_at_once_and_then_the_rest"},
		{wrong.BrokenStreamCancels, "OperationStream", "WaitExecution_works_after_the_first_stream_broke"},
		{wrong.WaitUnknownIsInternal, "OperationStream", "WaitExecution_of_an_unknown_operation_is_NOT_FOUND"},
		{wrong.NoKeepAlive, "OperationStream", "long_waits_are_kept_alive"},
		{wrong.OperationNeverDone, "Operations", "GetOperation_gives_the_state"},
		{wrong.OperationUnknownIsEmpty, "Operations", "GetOperation_of_an_unknown_name_is_NOT_FOUND"},
		{wrong.ListEmpty, "Operations", "ListOperations_lists_what_runs"},
		{wrong.CancelIgnored, "Operations", "CancelOperation_ends_the_execution"},
		{wrong.CancelCached, "Operations", "CancelOperation_leaves_nothing_behind"},
		{wrong.CancelLeaks, "Operations", "CancelOperation_frees_what_it_held"},
		{wrong.CancelRewrites, "Operations", "CancelOperation_of_a_finished_one_changes_nothing"},
		{wrong.CancelUnknownNotFound, "Operations", "CancelOperation_of_an_unknown_name_is_INVALID_ARGUMENT"},
		{wrong.DeleteIgnored, "Operations", "DeleteOperation_forgets"},
	}
}

// policyDefects are the defects of what is cached, merged, timed and told.
func policyDefects() []caught {
	return []caught{
		{wrong.NothingCached, "ExecutionPolicy", "a_success_is_cached"},
		{wrong.FailureCached, "ExecutionPolicy", "a_failure_is_never_cached"},
		{wrong.TimeoutCached, "ExecutionPolicy", "an_error_is_never_cached"},
		{wrong.DoNotCacheIgnored, "ExecutionPolicy", "do_not_cache_is_not_cached"},
		{wrong.DoNotCacheMerged, "ExecutionPolicy", "do_not_cache_is_not_merged"},
		{wrong.NeverMerged, "ExecutionPolicy", "equal_actions_in_flight_are_merged"},
		{wrong.SkipLookupIgnored, "ExecutionPolicy", "skip_cache_lookup_executes"},
		{wrong.SkipLookupNotStored, "ExecutionPolicy", "skip_cache_lookup_overwrites"},
		{wrong.TimeoutIgnored, "ExecutionPolicy", "a_timeout_is_DEADLINE_EXCEEDED"},
		{wrong.TimeoutIsResult, "ExecutionPolicy", "a_timeout_is_DEADLINE_EXCEEDED"},
		{wrong.TimeoutSparesChildren, "ExecutionPolicy", "a_timeout_kills_the_children_too"},
		{wrong.TimeoutMaximumIgnored, "ExecutionPolicy", "a_timeout_above_the_maximum_is_INVALID_ARGUMENT"},
		{wrong.TimeoutShort, "ExecutionPolicy", "a_timeout_of_hours_is_accepted"},
		{wrong.TimestampsMissing, "ExecutionPolicy", "timestamps_are_all_set"},
		{wrong.TimestampsTangled, "ExecutionPolicy", "timestamps_are_ordered"},
		{wrong.WorkerUnset, "ExecutionPolicy", "the_worker_is_named"},
		{wrong.UsageUnset, "ExecutionPolicy", "resource_usage_is_told"},
		{wrong.MessageUnset, "ExecutionPolicy", "the_response_says_where_it_ran"},
		{wrong.SecondAttemptClobbers, "ExecutionPolicy", "a_second_execution_does_not_clobber_the_first"},
		{wrong.ResultFunctionIsSHA256, "ExecutionPolicy", "results_use_the_function_of_the_action"},
	}
}

// commandDefects are the defects of commands and their inputs.
func commandDefects() []caught {
	return []caught{
		{wrong.AbsoluteCommandRefused, "Command", "argv_0_may_be_absolute"},
		{wrong.RelativeFromRoot, "Command", "argv_0_may_be_relative_to_the_working_directory"},
		{wrong.BareCommandRefused, "Command", "argv_0_may_be_bare"},
		{wrong.ArgumentsSplit, "Command", "arguments_arrive_unchanged"},
		{wrong.EnvironmentLost, "Command", "the_environment_is_the_Commands"},
		{wrong.UnsortedRefused, "Command", "an_unsorted_environment_is_tolerated"},
		{wrong.RootBelow, "Command", "the_working_directory_is_the_input_root"},
		{wrong.WorkingDirectoryIgnored, "Command", "the_working_directory_may_be_below_the_root"},
		{wrong.EscapingPathsAccepted, "Command", "a_working_directory_outside_the_root_is_refused"},
		{wrong.CommandPlatformFirst, "Command", "the_platform_of_the_action_comes_first"},
		{wrong.CommandPlatformIgnored, "Command", "the_platform_of_the_command_counts_when_the_action_has_none"},
		{wrong.UnknownPropertyAccepted, "Command", "an_unknown_platform_property_is_refused_by_name"},
		{wrong.UnknownPropertyUnnamed, "Command", "an_unknown_platform_property_is_refused_by_name"},
		{wrong.AbsentCommandSucceeds, "Command", "a_command_that_does_not_exist_is_told"},
		{wrong.EmptyInputMissing, "Command", "inputs_are_there"},
		{wrong.InputsSpoilStore, "Command", "inputs_cannot_be_spoiled"},
		{wrong.LeftoversStay, "Command", "nothing_is_left_from_another_action"},
		{wrong.PriorityRefused, "Command", "priorities_in_the_range_are_accepted"},
		{wrong.UnsafeNamesAccepted, "Inputs", "unsafe_names_are_refused"},
		{wrong.DuplicatesInList, "Inputs", "names_twice_in_a_list_are_refused"},
		{wrong.DuplicateNamesAccepted, "Inputs", "names_twice_across_the_lists_are_refused"},
		{wrong.MalformedTreeIsInternal, "Inputs", "malformed_directories_are_refused"},
		{wrong.UnsortedIsInternal, "Inputs", "unsorted_directories_do_not_hang"},
		{wrong.DepthUnbounded, "Inputs", "a_tree_too_deep_is_refused"},
		{wrong.WidthUnbounded, "Inputs", "a_tree_too_wide_is_refused"},
		{wrong.CrashesAfterBomb, "Inputs", "the_server_is_well_after_bad_inputs"},
	}
}

// outputDefects are the defects of outputs.
func outputDefects() []caught {
	return []caught{
		{wrong.EmptyOutputLost, "Outputs", "output_files_come_back"},
		{wrong.NoOutputParents, "Outputs", "parents_of_outputs_exist_before_the_command_runs"},
		{wrong.MissingOutputFails, "Outputs", "a_missing_output_is_left_out"},
		{wrong.UnlistedOutputs, "Outputs", "only_listed_outputs_come_back"},
		{wrong.OldFieldsUsedToo, "Outputs", "output_paths_supersede_the_old_fields"},
		{wrong.OldFieldsIgnored, "Outputs", "the_old_fields_work_alone"},
		{wrong.DotDotOutputRefused, "Outputs", "dot_dot_inside_the_root_is_legal_in_output_paths"},
		{wrong.EscapingPathsAccepted, "Outputs", "dot_dot_out_of_the_root_is_refused_in_output_paths"},
		{wrong.ExecutableBitLost, "Outputs", "the_executable_bit_comes_back"},
		{wrong.StderrInStdout, "Outputs", "stdout_and_stderr_come_back"},
		{wrong.ExitCodeIsOne, "Outputs", "exit_codes_come_back"},
		{wrong.SignalIsSuccess, "Outputs", "death_by_a_signal_is_no_success"},
		{wrong.SymlinksFollowed, "Outputs", "symlinks_come_back_as_symlinks"},
		{wrong.OldSymlinksUnset, "Outputs", "symlinks_come_back_in_the_old_lists_too"},
		{wrong.AbsoluteSymlinksRefused, "Outputs", "absolute_symlinks_follow_the_advertised_strategy"},
		{wrong.TreeSymlinksDropped, "Outputs", "symlinks_in_trees_are_kept"},
		{wrong.OutputsThroughLinks, "Outputs", "an_output_reached_through_an_escaping_symlink_is_not_collected"},
		{wrong.InputsNotOutputs, "Outputs", "inputs_can_be_outputs"},
		{wrong.TreeShallow, "OutputDirectories", "an_output_directory_is_a_tree"},
		{wrong.EmptyDirectoryLost, "OutputDirectories", "an_empty_output_directory_comes_back"},
		{wrong.TreeUnset, "OutputDirectories", "TREE_ONLY_gives_a_tree"},
		{wrong.DirectoryOnlyIgnored, "OutputDirectories", "DIRECTORY_ONLY_gives_directories"},
		{wrong.RootDigestWrong, "OutputDirectories", "TREE_AND_DIRECTORY_gives_both"},
		{wrong.TreeRepeats, "OutputDirectories", "trees_are_deduplicated_with_parents_first"},
		{wrong.TreeChildrenFirst, "OutputDirectories", "trees_are_deduplicated_with_parents_first"},
		{wrong.TreeChildrenFirst, "OutputDirectories", "is_topologically_sorted_is_true_where_it_is_set"},
		{wrong.TreeUnstable, "OutputDirectories", "equal_directories_make_equal_trees"},
		{wrong.TreeUnsorted, "OutputDirectories", "directories_of_trees_are_canonical"},
		{wrong.NodePropertiesIgnored, "NodeProperties", "advertised_node_properties_come_back_when_asked"},
		{wrong.NodePropertiesAlways, "NodeProperties", "node_properties_stay_away_when_not_asked"},
		{wrong.UnknownNodePropertyIgnored, "NodeProperties", "an_unknown_node_property_is_INVALID_ARGUMENT"},
		{wrong.InputMtimeIgnored, "NodeProperties", "node_properties_of_inputs_are_honoured"},
	}
}
