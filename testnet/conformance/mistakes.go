package conformance

// mistake is something servers commonly get wrong, and the check that finds it.
type mistake struct{ claim, section, found string }

// commonMistakes lists them.
func commonMistakes() []mistake {
	return []mistake{
		{"the_empty_blob_exists", "EveryCall", "the_empty_blob_reads_and_writes_by_ByteStream"},
		{"do_not_cache_is_heeded", "ExecutionPolicy", "do_not_cache_is_not_cached"},
		{"GetTree_QueryWriteStatus_and_read_limit_exist", "Capabilities", "GetTree_QueryWriteStatus_and_read_limit_are_implemented"},
		{"missing_blobs_are_reported_together", "MissingBlobs", "every_absent_input_is_named_at_once"},
		{"a_lost_blob_is_not_NOT_FOUND", "MissingBlobs", "an_absent_command_is_FAILED_PRECONDITION"},
		{"a_hit_has_its_tree_children", "ActionCache", "a_hit_has_every_child_of_its_trees"},
		{"the_batch_limit_is_a_number", "CAS", "the_batch_limit_is_not_0"},
		{"output_directories_have_their_parents", "Outputs", "parents_of_outputs_exist_before_the_command_runs"},
		{"a_second_attempt_has_its_own_directory", "ExecutionPolicy", "a_second_execution_does_not_clobber_the_first"},
		{"capabilities_do_not_overstate", "Capabilities", "nothing_is_advertised_that_does_not_work"},
		{"cancel_cancels", "Operations", "CancelOperation_ends_the_execution"},
		{"committed_size_is_the_size", "ByteStreamWrite", "a_write_commits_its_size"},
		{"DIRECTORY_ONLY_is_heeded", "OutputDirectories", "DIRECTORY_ONLY_gives_directories"},
		{"digests_are_not_inferred_by_length_alone", "DigestFunctions", "BLAKE3_is_never_inferred"},
		{"names_are_unique_across_the_lists", "Inputs", "names_twice_across_the_lists_are_refused"},
	}
}

// mistakes makes a section of the common mistakes: the same checks under other names.
func mistakes(all []Section) []Check {
	var checks []Check
	for _, m := range commonMistakes() {
		c, found := find(all, m.section, m.found)
		if !found {
			panic("conformance: no check " + m.section + "/" + m.found) // a mistake in the table above
		}
		c.Claim = m.claim
		checks = append(checks, c)
	}
	return checks
}
